/* routing: the formulas on distributions whose entropies are known, and the document. */
#include <jansson.h>
#include <math.h>

#include "core/gate_counts.h"
#include "proto/routing.h"
#include "test_proto_support.h"

static void check_near(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) < 1e-12, "%.17g, expected %.17g", value, expected);
}

/* Arrays are [experts]. */
static struct routing_layer layer_of(const char *name, size_t experts, uint64_t rows,
                                     const uint64_t *selected, const double *probability,
                                     double entropy)
{
    struct moed_gate_counts *counts = moed_gate_counts_new(experts);
    counts->items = rows;
    counts->entropy = entropy;
    for (size_t i = 0; i < experts; i++)
        counts->expert[i] = (struct moed_expert_counts){selected[i], 0, 0, probability[i]};
    return (struct routing_layer){.name = name, .top_k = 1, .counts = counts};
}

static struct routing_summary summarize(size_t experts, uint64_t rows, const uint64_t *selected,
                                        const double *probability, double entropy)
{
    struct routing_layer layer = layer_of("moe", experts, rows, selected, probability, entropy);
    struct routing_summary summary = routing_summarize(&layer);
    moed_gate_counts_free((struct moed_gate_counts *)layer.counts);
    return summary;
}

START_TEST(nothing_routed_yet)
{
    const uint64_t zeros[3] = {0};
    const double sums[3] = {0};
    struct routing_summary summary = summarize(3, 0, zeros, sums, 0);
    ck_assert(summary.usage_entropy_bits == 0 && summary.gate_entropy_bits == 0);
    ck_assert(summary.imbalance == 0);
    ck_assert_uint_eq(summary.unused, 3);
}
END_TEST

/* Eight rows, each sure of its expert, two per expert: even usage (2 bits), certain gate (0 bits).
 */
START_TEST(even_and_certain)
{
    const uint64_t counts[4] = {2, 2, 2, 2};
    const double sums[4] = {2, 2, 2, 2};
    struct routing_summary summary = summarize(4, 8, counts, sums, 0);
    check_near(summary.usage_entropy_bits, 2);
    check_near(summary.gate_entropy_bits, 0);
    check_near(summary.imbalance, 1);
    ck_assert_uint_eq(summary.unused, 0);
}
END_TEST

/* All rows to one of four experts. */
START_TEST(collapsed)
{
    const uint64_t counts[4] = {0, 10, 0, 0};
    const double sums[4] = {0, 10, 0, 0};
    struct routing_summary summary = summarize(4, 10, counts, sums, 0);
    check_near(summary.usage_entropy_bits, 0);
    check_near(summary.imbalance, 4);
    ck_assert_uint_eq(summary.unused, 3);
    ck_assert(!signbit(summary.usage_entropy_bits));
}
END_TEST

/* Usage entropy is that of the mean of p over ALL experts, not of the selections. */
START_TEST(usage_comes_from_probabilities)
{
    const uint64_t selected[2] = {4, 0};
    const double probability[2] = {3, 1};
    struct routing_summary summary = summarize(2, 4, selected, probability, 4 * 0.8112781244591328);
    check_near(summary.usage_entropy_bits, 0.8112781244591328); /* of (3/4, 1/4) */
    check_near(summary.gate_entropy_bits, 0.8112781244591328);
    check_near(summary.imbalance, 2);
    ck_assert_uint_eq(summary.unused, 1);
}
END_TEST

START_TEST(document_has_every_member)
{
    const uint64_t selected[3] = {3, 1, 0}, no_rows[3] = {0};
    const double probability[3] = {1, 1, 0}, no_sums[3] = {0};
    struct routing_layer layers[] = {
        layer_of("moe", 3, 2, selected, probability, 2),
        layer_of("later \"one\"", 3, 0, no_rows, no_sums, 0),
    };
    struct moed_expert_counts *expert = ((struct moed_gate_counts *)layers[0].counts)->expert;
    layers[0].top_k = 2;
    expert[0].top1 = 2;
    expert[0].weight = 1.5;
    expert[1].weight = 0.5;
    struct buffer body;
    buffer_init(&body, 1 << 16);
    routing_document("digits", "3", layers, 2, &body);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(
        body.data,
        "{\"model\":\"digits\",\"version\":\"3\",\"layers\":["
        "{\"name\":\"moe\",\"rows\":2,\"top_k\":2,\"experts\":["
        "{\"index\":0,\"selected\":3,\"share\":0.75,\"weight\":1.5,\"top1\":2},"
        "{\"index\":1,\"selected\":1,\"share\":0.25,\"weight\":0.5,\"top1\":0},"
        "{\"index\":2,\"selected\":0,\"share\":0,\"weight\":0,\"top1\":0}],"
        "\"usage_entropy_bits\":1,\"gate_entropy_bits\":1,\"imbalance\":2.25,\"unused\":1},"
        "{\"name\":\"later \\\"one\\\"\",\"rows\":0,\"top_k\":1,\"experts\":["
        "{\"index\":0,\"selected\":0,\"share\":0,\"weight\":0,\"top1\":0},"
        "{\"index\":1,\"selected\":0,\"share\":0,\"weight\":0,\"top1\":0},"
        "{\"index\":2,\"selected\":0,\"share\":0,\"weight\":0,\"top1\":0}],"
        "\"usage_entropy_bits\":0,\"gate_entropy_bits\":0,\"imbalance\":0,\"unused\":3}]}");
    for (size_t i = 0; i < 2; i++)
        moed_gate_counts_free((struct moed_gate_counts *)layers[i].counts);
    buffer_close(&body);
}
END_TEST

START_TEST(document_without_layers)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    routing_document("dense", "1", NULL, 0, &body);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, "{\"model\":\"dense\",\"version\":\"1\",\"layers\":[]}");
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/routing", nothing_routed_yet, even_and_certain, collapsed,
          usage_comes_from_probabilities, document_has_every_member, document_without_layers)

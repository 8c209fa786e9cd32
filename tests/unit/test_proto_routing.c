/* routing: the formulas on distributions whose entropies are known, and the document. */
#include <jansson.h>
#include <math.h>

#include "proto/routing.h"
#include "test_proto_support.h"

static void check_near(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) < 1e-12, "%.17g, expected %.17g", value, expected);
}

static const struct routing_totals *totals_of(const char *name, size_t experts, size_t top_k,
                                              uint64_t rows, const uint64_t *selected,
                                              const uint64_t *top1, const double *weight,
                                              const double *probability, double entropy)
{
    static struct routing_totals totals;
    totals = (struct routing_totals){.layer = name,
                                     .experts = experts,
                                     .top_k = top_k,
                                     .rows = rows,
                                     .selected = selected,
                                     .top1 = top1,
                                     .weight_sum = weight,
                                     .probability_sum = probability,
                                     .entropy_sum = entropy};
    return &totals;
}

START_TEST(nothing_routed_yet)
{
    const uint64_t zeros[3] = {0};
    const double sums[3] = {0};
    struct routing_summary summary = routing_summarize(&(struct routing_totals){
        .layer = "moe",
        .experts = 3,
        .top_k = 1,
        .selected = zeros,
        .top1 = zeros,
        .weight_sum = sums,
        .probability_sum = sums,
    });
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
    struct routing_summary summary =
        routing_summarize(totals_of("moe", 4, 1, 8, counts, counts, sums, sums, 0));
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
    struct routing_summary summary =
        routing_summarize(totals_of("moe", 4, 1, 10, counts, counts, sums, sums, 0));
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
    struct routing_summary summary = routing_summarize(totals_of(
        "moe", 2, 1, 4, selected, selected, probability, probability, 4 * 0.8112781244591328));
    check_near(summary.usage_entropy_bits, 0.8112781244591328); /* of (3/4, 1/4) */
    check_near(summary.gate_entropy_bits, 0.8112781244591328);
    check_near(summary.imbalance, 2);
    ck_assert_uint_eq(summary.unused, 1);
}
END_TEST

START_TEST(document_has_every_member)
{
    const uint64_t selected[3] = {3, 1, 0}, top1[3] = {2, 0, 0};
    const double weight[3] = {1.5, 0.5, 0}, probability[3] = {1, 1, 0};
    const struct routing_totals layers[] = {
        *totals_of("moe", 3, 2, 2, selected, top1, weight, probability, 2),
        *totals_of("later \"one\"", 3, 1, 0, (const uint64_t[3]){0}, (const uint64_t[3]){0},
                   (const double[3]){0}, (const double[3]){0}, 0),
    };
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

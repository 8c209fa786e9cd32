/* routing: the formulas on counts whose figures are known, and the document. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "proto/routing.h"
#include "proto/routing_figures.h"
#include "test_proto_support.h"

static void check_near(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) < 1e-9, "%.17g, expected %.17g", value, expected);
}

/* Arrays are [experts]; NULL: zeros. */
static struct moed_gate_counts *counts_of(size_t experts, uint64_t items, const uint64_t *selected,
                                          const double *weight)
{
    struct moed_gate_counts *counts = moed_gate_counts_new(experts);
    counts->items = items;
    for (size_t i = 0; i < experts; i++) {
        counts->expert[i].selected = selected ? selected[i] : 0;
        counts->expert[i].weight = weight ? moed_sum_of(weight[i]) : 0;
        counts->expert[i].magnitude = weight ? moed_sum_of(fabs(weight[i])) : 0;
    }
    return counts;
}

#define COUNTS(...)                                                                                \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define SUMS(...)                                                                                  \
    (const double[])                                                                               \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static struct routing_figures figures_of(size_t experts, uint64_t items, const uint64_t *selected,
                                         const double *weight)
{
    struct moed_gate_counts *counts = counts_of(experts, items, selected, weight);
    const struct routing_figures figures = routing_figures_of(counts);
    moed_gate_counts_free(counts);
    return figures;
}

/* ---- figures ---- */

START_TEST(nothing_routed_yet)
{
    const struct routing_figures figures = figures_of(3, 0, NULL, NULL);
    const double *values = (const double *)&figures;
    for (size_t i = 0; i < offsetof(struct routing_figures, unused) / sizeof *values; i++)
        ck_assert_double_eq(values[i], 0);
    ck_assert_uint_eq(figures.unused, 3);
}
END_TEST

START_TEST(even)
{
    const struct routing_figures figures = figures_of(4, 8, COUNTS(2, 2, 2, 2), SUMS(2, 2, 2, 2));
    check_near(figures.imbalance, 1);
    check_near(figures.weight_imbalance, 1);
    check_near(figures.balancedness, 1);
    check_near(figures.cv, 0);
    check_near(figures.jain, 1);
    check_near(figures.effective_experts, 4);
    ck_assert_uint_eq(figures.unused, 0);
}
END_TEST

START_TEST(collapsed)
{
    const struct routing_figures figures =
        figures_of(4, 10, COUNTS(0, 10, 0, 0), SUMS(0, 10, 0, 0));
    check_near(figures.imbalance, 4);
    check_near(figures.weight_imbalance, 4);
    check_near(figures.balancedness, 0.25);
    check_near(figures.cv, sqrt(3));
    check_near(figures.jain, 0.25);
    check_near(figures.effective_experts, 1);
    ck_assert(!signbit(figures.usage_entropy_bits));
    ck_assert_uint_eq(figures.unused, 3);
}
END_TEST

/* A dense gate selects all alike; its weights tell. Negative ones count by their size. */
START_TEST(dense)
{
    const struct routing_figures figures = figures_of(2, 4, COUNTS(4, 4), SUMS(3, -1));
    check_near(figures.imbalance, 1);
    check_near(figures.weight_imbalance, 1.5);
    check_near(figures.effective_experts, exp2(0.8112781244591328));
}
END_TEST

/* Usage entropy is that of the mean of p over ALL experts, not of the selections. */
START_TEST(entropies_come_from_distributions)
{
    struct moed_gate_counts *counts = counts_of(2, 4, COUNTS(4, 0), NULL);
    counts->expert[0].probability = moed_sum_of(3);
    counts->expert[1].probability = moed_sum_of(1);
    counts->entropy = moed_sum_of(2);
    counts->margin = moed_sum_of(3);
    const struct routing_figures figures = routing_figures_of(counts);
    check_near(figures.usage_entropy_bits, 0.8112781244591328); /* of (3/4, 1/4) */
    check_near(figures.gate_entropy_bits, 0.5);
    check_near(figures.margin, 0.75);
    check_near(figures.imbalance, 2);
    ck_assert_uint_eq(figures.unused, 1);
    moed_gate_counts_free(counts);
}
END_TEST

/* Every selection found its expert full. */
START_TEST(all_dropped)
{
    struct moed_gate_counts *counts = counts_of(2, 3, NULL, NULL);
    counts->expert[0].dropped = 2;
    counts->expert[1].dropped = 1;
    ck_assert_uint_eq(routing_dropped(counts), 3);
    const struct routing_figures figures = routing_figures_of(counts);
    ck_assert_double_eq(figures.imbalance + figures.balancedness + figures.cv + figures.jain, 0);
    moed_gate_counts_free(counts);
}
END_TEST

START_TEST(shares_add_up_to_one)
{
    struct moed_gate_counts *counts = counts_of(3, 4, COUNTS(4, 2, 2), SUMS(1, -2, 1));
    double shares[3], weights[3];
    routing_shares(counts, shares);
    routing_weight_shares(counts, weights);
    check_near(shares[0], 0.5);
    check_near(shares[2], 0.25);
    check_near(weights[1], 0.5);
    check_near(weights[2], 0.25);
    moed_gate_counts_free(counts);
}
END_TEST

/* ---- dying ---- */

static bool dies(uint64_t earlier_items, uint64_t earlier_selected, uint64_t items,
                 uint64_t selected)
{
    struct moed_gate_counts *earlier =
        counts_of(2, earlier_items, COUNTS(earlier_selected, 1), NULL);
    struct moed_gate_counts *recent = counts_of(2, items, COUNTS(selected, 1), NULL);
    const bool is = routing_is_dying(earlier, recent, false, 0);
    moed_gate_counts_free(earlier);
    moed_gate_counts_free(recent);
    return is;
}

/* Half of 10 items, then none of 10: C(10, 5) / C(20, 5) = 0.016, which happens. Of 40 and 20 it is
 * C(40, 20) / C(60, 20) = 3.3e-5. */
START_TEST(an_expert_dies_beyond_chance)
{
    ck_assert(!dies(10, 5, 10, 0));
    ck_assert(dies(40, 20, 20, 0));
    ck_assert(!dies(40, 20, 20, 1));
    ck_assert(!dies(1000000, 0, 1000000, 0)); /* it never lived */
    ck_assert(!dies(2, 1, 50, 0));            /* who knows */
    ck_assert(!dies(1000, 500, 0, 0));        /* idle */
    ck_assert(!dies(0, 0, 1000, 0));
    ck_assert(dies(1000000000, 1000000, 100000, 0));
}
END_TEST

/* Of two experts, each may err once in two thousand times. */
START_TEST(the_limit_is_one_in_a_thousand)
{
    ck_assert(!dies(100, 30, 24, 0)); /* C(100, 30) / C(124, 30) = 5.6e-4 */
    ck_assert(dies(100, 30, 25, 0));  /* C(100, 30) / C(125, 30) = 4.3e-4 */
}
END_TEST

static bool fades(double earlier_share, uint64_t items, double share)
{
    const double before = 1000;
    struct moed_gate_counts *earlier = counts_of(
        2, 1000, COUNTS(1000, 1000), SUMS(earlier_share * before, (1 - earlier_share) * before));
    struct moed_gate_counts *recent = counts_of(
        2, items, COUNTS(items, items), SUMS(share * (double)items, (1 - share) * (double)items));
    const bool is = routing_is_dying(earlier, recent, true, 0);
    moed_gate_counts_free(earlier);
    moed_gate_counts_free(recent);
    return is;
}

START_TEST(dense_experts_die_by_weight)
{
    ck_assert(fades(0.5, 100, 0.01));
    ck_assert(fades(0.5, 100, 0));
    ck_assert(!fades(0.5, 100, 0.2)); /* less, but alive */
    ck_assert(!fades(0.5, 5, 0.01));  /* too few to tell */
    ck_assert(!fades(0, 1000, 0));
}
END_TEST

/* ---- the document ---- */

static struct routing_layer layer_of(const char *name, const struct moed_gate_counts *counts,
                                     const struct moed_gate_counts *none)
{
    return (struct routing_layer){
        .name = name, .top_k = 2, .counts = counts, .recent = none, .earlier = none};
}

static const char DOCUMENT[] =
    "{\"model\":\"digits\",\"version\":\"3\",\"window\":\"1m\",\"seconds\":60.5,\"rows\":2,"
    "\"layers\":[{\"name\":\"moe\",\"rows\":2,\"top_k\":2,\"experts\":["
    "{\"index\":0,\"selected\":3,\"share\":0.75,\"weight\":1.5,\"weight_share\":0.75,"
    "\"probability\":0,\"top1\":2,\"idle_seconds\":2.5},"
    "{\"index\":1,\"selected\":1,\"share\":0.25,\"weight\":0.5,\"weight_share\":0.25,"
    "\"probability\":0.25,\"top1\":0,\"idle_seconds\":null},"
    "{\"index\":2,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"idle_seconds\":null}],"
    "\"usage_entropy_bits\":0.375,\"gate_entropy_bits\":0,\"margin\":0,\"imbalance\":2.25,"
    "\"weight_imbalance\":2.25,\"balancedness\":0.4444444444444444,"
    "\"cv\":0.9354143466934853,\"jain\":0.5333333333333333,"
    "\"effective_experts\":1.7547653506033232,\"unused\":1,\"dying\":[]},"
    "{\"name\":\"later \\\"one\\\"\",\"rows\":0,\"top_k\":2,\"experts\":["
    "{\"index\":2,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"dropped\":0,\"idle_seconds\":null},"
    "{\"index\":4,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"dropped\":0,\"idle_seconds\":null},"
    "{\"index\":9,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"dropped\":0,\"idle_seconds\":null}],"
    "\"usage_entropy_bits\":0,\"gate_entropy_bits\":0,\"margin\":0,\"imbalance\":0,"
    "\"weight_imbalance\":0,\"balancedness\":0,\"cv\":0,\"jain\":0,\"effective_experts\":0,"
    "\"unused\":3,\"dying\":[],\"dropped\":0}]}";

START_TEST(document_has_every_member)
{
    struct moed_gate_counts *none = counts_of(3, 0, NULL, NULL),
                            *some = counts_of(3, 2, COUNTS(3, 1, 0), SUMS(1.5, 0.5, 0));
    some->expert[0].top1 = 2;
    some->expert[0].last = 1000000000;
    some->expert[1].probability = moed_sum_of(0.25);
    struct routing_layer layers[] = {layer_of("moe", some, none),
                                     layer_of("later \"one\"", none, none)};
    layers[1].expert_index = (const int32_t[]){2, 4, 9};
    layers[1].limited = true;
    const struct routing_document document = {.model = "digits",
                                              .version = "3",
                                              .window = "1m",
                                              .seconds = 60.5,
                                              .rows = 2,
                                              .now = 3500000000,
                                              .layers = layers,
                                              .layer_count = 2};
    struct buffer body;
    buffer_init(&body, 1 << 16);
    routing_write(&document, &body);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, DOCUMENT);
    moed_gate_counts_free(some);
    moed_gate_counts_free(none);
    buffer_close(&body);
}
END_TEST

START_TEST(document_names_the_dying)
{
    struct moed_gate_counts *earlier = counts_of(3, 1000, COUNTS(500, 100, 400), NULL);
    struct moed_gate_counts *recent = counts_of(3, 1000, COUNTS(1000, 0, 0), NULL);
    struct routing_layer layer = layer_of("moe", recent, earlier);
    layer.recent = recent;
    layer.expert_index = (const int32_t[]){2, 4, 9};
    const struct routing_document document = {
        .model = "m", .version = "1", .window = "all", .layers = &layer, .layer_count = 1};
    struct buffer body;
    buffer_init(&body, 1 << 16);
    routing_write(&document, &body);
    buffer_append(&body, "", 1);
    ck_assert_ptr_nonnull(strstr(body.data, "\"dying\":[4,9]"));
    moed_gate_counts_free(earlier);
    moed_gate_counts_free(recent);
    buffer_close(&body);
}
END_TEST

START_TEST(document_without_layers)
{
    const struct routing_document document = {.model = "dense", .version = "1", .window = "all"};
    struct buffer body;
    buffer_init(&body, 1 << 16);
    routing_write(&document, &body);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, "{\"model\":\"dense\",\"version\":\"1\",\"window\":\"all\","
                                "\"seconds\":0,\"rows\":0,\"layers\":[]}");
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/routing", nothing_routed_yet, even, collapsed, dense,
          entropies_come_from_distributions, all_dropped, shares_add_up_to_one,
          an_expert_dies_beyond_chance, the_limit_is_one_in_a_thousand, dense_experts_die_by_weight,
          document_has_every_member, document_names_the_dying, document_without_layers)

/* routing: the formulas on counts whose figures are known, and the document. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "proto/routing.h"
#include "proto/routing_drift.h"
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
        counts->expert[i].part = weight ? moed_sum_of(fabs(weight[i])) : 0;
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

/* ---- drift ---- */

/* Items of the experts in two samples, and what numpy and scipy make of them:
 * chi2_contingency(lambda_="log-likelihood", correction=False) of the cells. */
static const struct {
    size_t experts;
    double one[4], other[4];
    double js_bits, psi, p_value; /* -1: not tested */
} DRIFTS[] = {
    {3,
     {30, 30, 40},
     {300, 320, 380},
     0.0004177142968235792,
     0.002165461652349875,
     0.9002286832967742},
    {3,
     {30, 10, 60},
     {300, 320, 380},
     0.06167532858121305,
     0.3419118415381881,
     5.030086367271768e-07},
    {3, {2, 1, 1}, {3, 5, 4}, 0.050136188244587876, 0.17586178733066013, -1},
    {4,
     {60, 2, 1, 40},
     {500, 10, 10, 480},
     0.006874951717603883,
     0.04350260970087237,
     0.1098288731801898},
    {4,
     {10000, 20000, 30000, 0},
     {20000, 10000, 30000, 10},
     0.04093200337643932,
     0.23152109187752434,
     0},
    {4, {25, 25, 25, 25}, {25, 25, 25, 25}, 0, 0, 1},
    {2, {500, 500}, {560, 440}, 0.0026078279567118834, 0.014440687141017804, 0.007167786185163516},
};

static struct routing_sample sample_of(const double *items, size_t experts, double *share)
{
    double sum = 0;
    for (size_t i = 0; i < experts; i++)
        sum += items[i];
    for (size_t i = 0; i < experts; i++)
        share[i] = items[i] / sum;
    return (struct routing_sample){share, sum};
}

START_TEST(drift_is_what_scipy_says)
{
    for (size_t i = 0; i < sizeof DRIFTS / sizeof *DRIFTS; i++) {
        double p[4], q[4];
        struct routing_drift drift;
        const size_t experts = DRIFTS[i].experts;
        const struct routing_sample one = sample_of(DRIFTS[i].one, experts, p),
                                    other = sample_of(DRIFTS[i].other, experts, q);
        ck_assert(routing_drift_of(experts, &one, &other, &drift));
        check_near(drift.js_bits, DRIFTS[i].js_bits);
        check_near(drift.psi, DRIFTS[i].psi);
        ck_assert(drift.tested == (DRIFTS[i].p_value >= 0));
        check_near(drift.p_value, drift.tested ? DRIFTS[i].p_value : 1);
        ck_assert(routing_drift_of(experts, &other, &one, &drift)); /* symmetric */
        check_near(drift.js_bits, DRIFTS[i].js_bits);
        check_near(drift.p_value, drift.tested ? DRIFTS[i].p_value : 1);
    }
}
END_TEST

START_TEST(nothing_drifts_from_nothing)
{
    struct routing_drift drift;
    const struct routing_sample none = {SUMS(0, 0), 0}, some = {SUMS(0.5, 0.5), 4};
    ck_assert(!routing_drift_of(2, &none, &some, &drift));
    ck_assert(!routing_drift_of(2, &some, &(struct routing_sample){0}, &drift));
}
END_TEST

/* Of 2,000 pairs of samples from one distribution, about 1 % have a p-value below 1 %. */
START_TEST(few_rows_do_not_cry_wolf)
{
    enum { PAIRS = 2000, ITEMS = 60, EXPERTS = 4 };
    uint32_t state = 17;
    int alarms = 0;
    for (int pair = 0; pair < PAIRS; pair++) {
        double items[2][EXPERTS] = {{0}}, p[EXPERTS], q[EXPERTS];
        struct routing_drift drift;
        for (int item = 0; item < 2 * ITEMS; item++) {
            state = state * 1664525u + 1013904223u;
            const uint32_t at = (state >> 8) % 20;
            items[item % 2][at < 10 ? 0 : at < 16 ? 1 : at < 19 ? 2 : 3]++;
        }
        const struct routing_sample one = sample_of(items[0], EXPERTS, p),
                                    other = sample_of(items[1], EXPERTS, q);
        ck_assert(routing_drift_of(EXPERTS, &one, &other, &drift));
        alarms += drift.p_value < 0.01;
    }
    ck_assert_int_gt(alarms, 5);
    ck_assert_int_lt(alarms, 40);
}
END_TEST

/* ---- the document ---- */

static struct routing_layer layer_of(const char *name, const struct moed_gate_counts *counts,
                                     const struct moed_gate_counts *none)
{
    return (struct routing_layer){.name = name,
                                  .top_k = 2,
                                  .counts = counts,
                                  .recent = none,
                                  .earlier = none,
                                  .before = none};
}

static const char DOCUMENT[] =
    "{\"format\":1,\"model\":\"digits\",\"version\":\"3\",\"window\":\"1m\",\"seconds\":60.5,"
    "\"rows\":2,"
    "\"tags\":[\"a\",\"other\"],\"layers\":[{\"name\":\"moe\",\"rows\":2,\"intervened\":7,"
    "\"overflowed\":3,"
    "\"top_k\":2,\"experts\":["
    "{\"index\":0,\"selected\":3,\"share\":0.75,\"weight\":1.5,\"weight_share\":0.75,"
    "\"reference_share\":0,\"probability\":0,\"top1\":2,\"compute_seconds\":0.5,\"idle_seconds\":2."
    "5},"
    "{\"index\":1,\"selected\":1,\"share\":0.25,\"weight\":0.5,\"weight_share\":0.25,"
    "\"reference_share\":0,\"probability\":0.25,\"top1\":0,\"compute_seconds\":0,\"idle_seconds\":"
    "null},"
    "{\"index\":2,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"reference_share\":1,\"probability\":0,\"top1\":0,\"compute_seconds\":0,\"idle_seconds\":"
    "null}],"
    "\"usage_entropy_bits\":0.375,\"gate_entropy_bits\":0,\"margin\":0,\"imbalance\":2.25,"
    "\"weight_imbalance\":2.25,\"balancedness\":0.4444444444444444,"
    "\"cv\":0.9354143466934853,\"jain\":0.5333333333333333,"
    "\"effective_experts\":1.7547653506033232,\"unused\":1,\"dying\":[],"
    "\"drift\":{\"reference\":{\"js_bits\":1,\"psi\":3.244649335495236,\"p_value\":null},"
    "\"previous\":null},\"quarantine\":[]},"
    "{\"name\":\"later "
    "\\\"one\\\"\",\"rows\":0,\"intervened\":0,\"overflowed\":0,\"top_k\":2,\"experts\":["
    "{\"index\":2,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"compute_seconds\":0,\"dropped\":0,\"idle_seconds\":null},"
    "{\"index\":4,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"compute_seconds\":0,\"dropped\":0,\"idle_seconds\":null},"
    "{\"index\":9,\"selected\":0,\"share\":0,\"weight\":0,\"weight_share\":0,"
    "\"probability\":0,\"top1\":0,\"compute_seconds\":0,\"dropped\":0,\"idle_seconds\":null}],"
    "\"usage_entropy_bits\":0,\"gate_entropy_bits\":0,\"margin\":0,\"imbalance\":0,"
    "\"weight_imbalance\":0,\"balancedness\":0,\"cv\":0,\"jain\":0,\"effective_experts\":0,"
    "\"unused\":3,\"dying\":[],"
    "\"drift\":{\"reference\":null,\"previous\":null},\"dropped\":0,\"quarantine\":[{\"expert\":4}]"
    "}]}";

START_TEST(document_has_every_member)
{
    struct moed_gate_counts *none = counts_of(3, 0, NULL, NULL),
                            *some = counts_of(3, 2, COUNTS(3, 1, 0), SUMS(1.5, 0.5, 0));
    some->intervened = 7;
    some->overflowed = 3;
    some->expert[0].top1 = 2;
    some->expert[0].seconds = moed_sum_of(0.5);
    some->expert[0].last = 1000000000;
    some->expert[1].probability = moed_sum_of(0.25);
    struct routing_layer layers[] = {layer_of("moe", some, none),
                                     layer_of("later \"one\"", none, none)};
    layers[0].reference = (struct routing_sample){SUMS(0, 0, 1), 10};
    layers[1].expert_index = (const int32_t[]){2, 4, 9};
    layers[1].limited = true;
    layers[1].quarantine = "[{\"expert\":4}]";
    const struct routing_document document = {.model = "digits",
                                              .version = "3",
                                              .window = "1m",
                                              .seconds = 60.5,
                                              .rows = 2,
                                              .now = 3500000000,
                                              .tags = (const char *const[]){"a", "other"},
                                              .tag_count = 2,
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
    buffer_close(&body);
    buffer_init(&body, 1 << 16);
    layer.quarantined = (const bool[]){true, true, false};
    routing_write(&document, &body);
    buffer_append(&body, "", 1);
    ck_assert_ptr_nonnull(strstr(body.data, "\"dying\":[9]"));
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
    ck_assert_str_eq(body.data,
                     "{\"format\":1,\"model\":\"dense\",\"version\":\"1\",\"window\":\"all\","
                     "\"seconds\":0,\"rows\":0,\"tags\":[],\"layers\":[]}");
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/routing", nothing_routed_yet, even, collapsed, dense,
          entropies_come_from_distributions, all_dropped, shares_add_up_to_one,
          an_expert_dies_beyond_chance, the_limit_is_one_in_a_thousand, dense_experts_die_by_weight,
          drift_is_what_scipy_says, nothing_drifts_from_nothing, few_rows_do_not_cry_wolf,
          document_has_every_member, document_names_the_dying, document_without_layers)

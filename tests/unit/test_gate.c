/* Which experts serve an item, with which weights, and how that is counted. */
#include "core/gate_counts.h"
#include "core/moe/select.h"
#include "support.h"

#define LN2 0.69314718f
#define LN3 1.0986123f
#define LN4 1.3862944f

static struct routing routing;

/* Counts all decisions of `routing`; the caller frees the counts. */
static struct moed_gate_counts *count_all(void)
{
    const struct moed_routing *decisions = &routing.decisions;
    struct moed_gate_counts *counts = moed_gate_counts_new(decisions->experts);
    moed_gate_counts_count(counts, decisions, 0, decisions->items, 1);
    return counts;
}

static struct gate gate_of(size_t experts, size_t top_k, const struct gate_score *score,
                           const struct gate_normalize *normalize)
{
    return (struct gate){.policy = {.experts = experts,
                                    .top_k = top_k,
                                    .score = score,
                                    .normalize = normalize,
                                    .scale = 1}};
}

/* Selects for items of one span. */
static void select_all(const struct gate *gate, size_t items, float *logits)
{
    const struct moed_span span = {.rows = items};
    const struct run run = {.spans = &span, .span_count = 1};
    gate_select(gate, &run, items, logits, &routing);
}

/* Routes one item per `experts` logits; the caller closes `routing`. */
static void route(const struct gate *gate, size_t items, const float *logits)
{
    struct error err = ERROR_INIT;
    const struct moed_gate_info info = {.name = "m",
                                        .experts = gate->policy.experts,
                                        .top_k = gate->policy.top_k,
                                        .limited = gate->policy.capacity.limited,
                                        .items_per_row = 1};
    float *copy = xmalloc(items * gate->policy.experts * sizeof *copy);
    memcpy(copy, logits, items * gate->policy.experts * sizeof *copy);
    ck_assert_int_eq(routing_init(&routing, &info, items, true, &err), 0);
    select_all(gate, items, copy);
    free(copy);
}

static void expect_route(const struct gate *gate, const float *logits, const int32_t *experts,
                         const float *weights)
{
    route(gate, 1, logits);
    for (size_t slot = 0; slot < gate->policy.top_k; slot++)
        ck_assert_int_eq(routing.expert[slot], experts[slot]);
    expect_close(routing.weight, weights, gate->policy.top_k);
    routing_close(&routing);
}

#define EXPERTS(...)                                                                               \
    (const int32_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

START_TEST(softmax_scores)
{
    /* p = 1/8, 1/4, 1/2, 1/8 */
    const float logits[] = {0, LN2, LN4, 0};
    struct gate gate = gate_of(4, 2, &score_softmax, &normalize_none);
    expect_route(&gate, logits, EXPERTS(2, 1), FLOATS(0.5f, 0.25f));
    gate.policy.normalize = &normalize_sum;
    expect_route(&gate, logits, EXPERTS(2, 1), FLOATS(2.0f / 3, 1.0f / 3));
    gate.policy.normalize = &normalize_softmax;
    expect_route(&gate, logits, EXPERTS(2, 1), FLOATS(2.0f / 3, 1.0f / 3));
    gate.policy.scale = 3;
    expect_route(&gate, logits, EXPERTS(2, 1), FLOATS(2, 1));
}
END_TEST

START_TEST(sigmoid_scores)
{
    /* 1/2, 3/4, 1/4 */
    const float logits[] = {0, LN3, -LN3};
    struct gate gate = gate_of(3, 2, &score_sigmoid, &normalize_none);
    expect_route(&gate, logits, EXPERTS(1, 0), FLOATS(0.75f, 0.5f));
    gate.policy.normalize = &normalize_sum;
    expect_route(&gate, logits, EXPERTS(1, 0), FLOATS(0.6f, 0.4f));
    gate.policy.normalize = &normalize_softmax;
    expect_route(&gate, logits, EXPERTS(1, 0), FLOATS(0.75f, 0.25f));
}
END_TEST

START_TEST(logits_as_scores)
{
    const float logits[] = {-1, 3, 0.5f};
    struct gate gate = gate_of(3, 3, &score_none, &normalize_none);
    expect_route(&gate, logits, EXPERTS(1, 2, 0), FLOATS(3, 0.5f, -1));
    gate.policy.normalize = &normalize_sum;
    expect_route(&gate, logits, EXPERTS(1, 2, 0), FLOATS(1.2f, 0.2f, -0.4f));
    /* nothing to divide by: equal shares */
    expect_route(&gate, FLOATS(0, 0, 0), EXPERTS(0, 1, 2), FLOATS(1.0f / 3, 1.0f / 3, 1.0f / 3));
    expect_route(&gate, FLOATS(-2, 2, 0), EXPERTS(1, 2, 0), FLOATS(1.0f / 3, 1.0f / 3, 1.0f / 3));
}
END_TEST

START_TEST(ties_go_to_the_lower_index)
{
    struct gate gate = gate_of(4, 2, &score_none, &normalize_none);
    expect_route(&gate, FLOATS(5, 5, 5, 5), EXPERTS(0, 1), FLOATS(5, 5));
    expect_route(&gate, FLOATS(1, 2, 2, 2), EXPERTS(1, 2), FLOATS(2, 2));
    expect_route(&gate, FLOATS(2, 1, 3, 2), EXPERTS(2, 0), FLOATS(3, 2));
    expect_route(&gate, FLOATS(0, -0.0f, 0, -0.0f), EXPERTS(0, 1), FLOATS(0, 0));
}
END_TEST

START_TEST(all_experts_or_only_one)
{
    const struct gate dense = gate_of(4, 4, &score_softmax, &normalize_none);
    expect_route(&dense, FLOATS(0, LN2, LN4, 0), EXPERTS(2, 1, 0, 3),
                 FLOATS(0.5f, 0.25f, 0.125f, 0.125f));
    const struct gate single = gate_of(1, 1, &score_softmax, &normalize_sum);
    expect_route(&single, FLOATS(-40), EXPERTS(0), FLOATS(1));
}
END_TEST

START_TEST(a_bias_selects_but_does_not_weigh)
{
    struct gate gate = gate_of(3, 2, &score_none, &normalize_none);
    gate.select_bias.values = FLOATS(10, 0, 5);
    expect_route(&gate, FLOATS(1, 2, 3), EXPERTS(0, 2), FLOATS(1, 3));
    /* ties are ties of the biased scores */
    gate.select_bias.values = FLOATS(2, 1, 0);
    expect_route(&gate, FLOATS(1, 2, 3), EXPERTS(0, 1), FLOATS(1, 2));
}
END_TEST

START_TEST(nan_is_the_worst_logit)
{
    struct gate gate = gate_of(3, 2, &score_softmax, &normalize_sum);
    expect_route(&gate, FLOATS(NAN, 0, LN3), EXPERTS(2, 1), FLOATS(0.75f, 0.25f));
    expect_route(&gate, FLOATS(INFINITY, 0, NAN), EXPERTS(0, 1), FLOATS(1, 0));
    expect_route(&gate, FLOATS(NAN, NAN, NAN), EXPERTS(0, 1), FLOATS(0.5f, 0.5f));
}
END_TEST

static bool is_sane(const struct gate *gate)
{
    size_t chosen = 0;
    for (size_t slot = 0; slot < gate->policy.top_k; slot++) {
        const int32_t expert = routing.expert[slot];
        if (expert < 0 || (size_t)expert >= gate->policy.experts || chosen >> expert & 1)
            return false;
        chosen |= (size_t)1 << expert;
        if (!isfinite(routing.weight[slot]))
            return false;
    }
    for (size_t e = 0; e < gate->policy.experts; e++)
        if (!(routing.probability[e] >= 0 && routing.probability[e] <= 1.0001f))
            return false;
    return routing.entropy[0] >= 0 && routing.entropy[0] <= 2.0001f && routing.margin[0] >= 0 &&
           routing.margin[0] <= 1.0001f;
}

/* Whatever a client sends, the chosen experts are distinct and all counters stay finite. */
START_TEST(no_logits_do_harm)
{
    static const float evil[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-40f, 1};
    enum { EVIL = 7, EXPERT_COUNT = 4 };
    struct error err = ERROR_INIT;
    const struct moed_gate_info info = {
        .name = "m", .experts = EXPERT_COUNT, .top_k = (size_t)_i % 4 + 1, .items_per_row = 1};
    struct gate gate = gate_of(EXPERT_COUNT, info.top_k, &score_softmax, &normalize_none);
    gate.policy.scale = 3;
    ck_assert_int_eq(routing_init(&routing, &info, 1, true, &err), 0);
    const struct gate_score *const scores[] = {&score_softmax, &score_sigmoid, &score_none};
    const struct gate_normalize *const normalizations[] = {&normalize_none, &normalize_sum,
                                                           &normalize_softmax};
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++)
            for (int code = 0; code < EVIL * EVIL * EVIL * EVIL; code += 3) {
                float logits[EXPERT_COUNT];
                for (int e = 0, rest = code; e < EXPERT_COUNT; e++, rest /= EVIL)
                    logits[e] = evil[rest % EVIL];
                gate.policy.score = scores[i];
                gate.policy.normalize = normalizations[j];
                select_all(&gate, 1, logits);
                if (!is_sane(&gate))
                    ck_abort_msg("logits %g %g %g %g", (double)logits[0], (double)logits[1],
                                 (double)logits[2], (double)logits[3]);
            }
    routing_close(&routing);
}
END_TEST

START_TEST(an_evil_bias_still_selects_distinct_experts)
{
    struct gate gate = gate_of(4, 3, &score_none, &normalize_sum);
    static const float biases[][4] = {
        {NAN, NAN, NAN, NAN}, {0, NAN, 0, 0}, {INFINITY, -INFINITY, INFINITY, 0}, {0, 0, 0, NAN}};
    for (size_t i = 0; i < 4; i++) {
        gate.select_bias.values = biases[i];
        route(&gate, 1, FLOATS(1, 3e38f, -3e38f, 0));
        ck_assert(is_sane(&gate));
        routing_close(&routing);
    }
}
END_TEST

START_TEST(statistics_are_sums_over_items)
{
    /* p = 1/8 1/4 1/2 1/8 (1.75 bits), then 1/4 each (2 bits), then expert 3 for sure (0 bits) */
    const float logits[] = {0, LN2, LN4, 0, 7, 7, 7, 7, -900, -900, -900, 900};
    const struct gate gate = gate_of(4, 2, &score_softmax, &normalize_sum);
    route(&gate, 3, logits);
    static const uint64_t selected[] = {2, 2, 1, 1}, top1[] = {1, 0, 1, 1};
    static const double weight[] = {0.5, 1.0 / 3 + 0.5, 2.0 / 3, 1},
                        p[] = {0.375, 0.5, 0.75, 1.375};
    struct moed_gate_counts *counts = count_all();
    ck_assert_uint_eq(counts->items, 3);
    for (size_t e = 0; e < 4; e++) {
        ck_assert_uint_eq(counts->expert[e].selected, selected[e]);
        ck_assert_uint_eq(counts->expert[e].top1, top1[e]);
        ck_assert_double_eq_tol(moed_sum_value(counts->expert[e].weight), weight[e], 1e-6);
        ck_assert_double_eq_tol(moed_sum_value(counts->expert[e].probability), p[e], 1e-6);
    }
    ck_assert_double_eq_tol(moed_sum_value(counts->entropy), 3.75, 1e-6);
    ck_assert_double_eq_tol(moed_sum_value(counts->margin), 0.25 + 0 + 1, 1e-6);
    moed_gate_counts_free(counts);
    routing_close(&routing);
}
END_TEST

START_TEST(p_is_the_gates_distribution_before_selection)
{
    /* sigmoid scores 1/2, 3/4, 1/4 over their sum 3/2 */
    struct gate gate = gate_of(3, 1, &score_sigmoid, &normalize_sum);
    gate.select_bias.values = FLOATS(9, 0, 0);
    gate.policy.scale = 5;
    route(&gate, 1, FLOATS(0, LN3, -LN3));
    expect_close(routing.probability, FLOATS(1.0f / 3, 1.0f / 2, 1.0f / 6), 3);
    expect_close(routing.entropy, FLOATS(1.4591479f), 1);
    expect_close(routing.margin, FLOATS(1.0f / 6), 1);
    routing_close(&routing);
    /* softmax of the logits when they are the scores */
    gate = gate_of(2, 1, &score_none, &normalize_none);
    route(&gate, 1, FLOATS(0, LN3));
    expect_close(routing.probability, FLOATS(0.25f, 0.75f), 2);
    routing_close(&routing);
}
END_TEST

START_TEST(the_only_expert_has_the_whole_margin)
{
    const struct gate gate = gate_of(1, 1, &score_softmax, &normalize_none);
    route(&gate, 1, FLOATS(3));
    expect_close(routing.margin, FLOATS(1), 1);
    expect_close(routing.entropy, FLOATS(0), 1);
    routing_close(&routing);
}
END_TEST

START_TEST(distributions_are_kept_on_demand)
{
    struct error err = ERROR_INIT;
    const struct gate gate = gate_of(3, 2, &score_softmax, &normalize_sum);
    const struct moed_gate_info info = {.experts = 3, .top_k = 2, .items_per_row = 1};
    float logits[] = {0, LN3, LN2, LN2, 0, LN3};
    ck_assert_int_eq(routing_init(&routing, &info, 2, false, &err), 0);
    select_all(&gate, 2, logits);
    ck_assert_ptr_null(routing.decisions.probability);
    ck_assert_ptr_null(routing.decisions.entropy);
    ck_assert_ptr_null(routing.decisions.margin);
    expect_close(routing.weight, FLOATS(0.6f, 0.4f, 0.6f, 0.4f), 4);
    struct moed_gate_counts *counts = count_all();
    ck_assert_uint_eq(counts->items, 2);
    ck_assert_uint_eq(counts->expert[2].selected, 2);
    ck_assert(counts->expert[2].probability + counts->entropy + counts->margin == 0);
    moed_gate_counts_free(counts);
    routing_close(&routing);
}
END_TEST

/* Decisions use the layer's expert indices, and -1 for dropped experts; the choice itself is
 * kept. */
START_TEST(the_choice_outlives_its_dropping)
{
    struct gate gate = gate_of(2, 1, &score_softmax, &normalize_none);
    int32_t names[] = {3, 7};
    gate.expert_index = names;
    gate.policy.capacity = (struct capacity){.limited = true, .factor = 1, .minimum = 1};
    route(&gate, 4, FLOATS(0, 1, 0, 1, 0, 1, 1, 0));
    static const int32_t expert[] = {7, 7, -1, 3}, choice[] = {1, 1, 1, 0};
    ck_assert_mem_eq(routing.expert, expert, sizeof expert);
    ck_assert_mem_eq(routing.choice, choice, sizeof choice);
    struct moed_gate_counts *counts = count_all();
    ck_assert_uint_eq(counts->expert[0].dropped, 0);
    ck_assert_uint_eq(counts->expert[1].dropped, 1);
    ck_assert_uint_eq(counts->expert[1].selected, 2);
    ck_assert_uint_eq(counts->expert[1].top1, 3);
    moed_gate_counts_free(counts);
    routing_close(&routing);
}
END_TEST

START_TEST(each_forward_counts_anew)
{
    const struct gate gate = gate_of(2, 1, &score_softmax, &normalize_none);
    float logits[] = {0, 1, 0, 1};
    route(&gate, 2, logits);
    select_all(&gate, 1, logits);
    struct moed_gate_counts *counts = count_all();
    ck_assert_uint_eq(counts->items, 1);
    ck_assert_uint_eq(counts->expert[1].selected, 1);
    ck_assert_uint_eq(counts->expert[1].top1, 1);
    ck_assert_double_eq_tol(
        moed_sum_value(counts->expert[0].probability + counts->expert[1].probability), 1, 1e-6);
    moed_gate_counts_free(counts);
    routing_close(&routing);
}
END_TEST

/* Ranks each expert by counting those that beat it. */
static void expect_ranks(const float *logits, size_t experts, size_t top_k, const int32_t *chosen)
{
    for (size_t e = 0; e < experts; e++) {
        size_t better = 0;
        for (size_t other = 0; other < experts; other++)
            better += logits[other] > logits[e] || (logits[other] == logits[e] && other < e);
        if (better < top_k && chosen[better] != (int32_t)e)
            ck_abort_msg("expert %zu has rank %zu, not %d", e, better, chosen[better]);
    }
}

START_TEST(selection_agrees_with_counting)
{
    enum { ITEMS = 40 };
    float logits[ITEMS * 20];
    for (size_t experts = 1; experts <= 20; experts++)
        for (size_t top_k = 1; top_k <= experts; top_k += 1 + experts / 7) {
            const struct gate gate = gate_of(experts, top_k, &score_none, &normalize_none);
            fill_integers(logits, ITEMS * experts, (uint32_t)(experts * 100 + top_k));
            route(&gate, ITEMS, logits);
            for (size_t item = 0; item < ITEMS; item++)
                expect_ranks(logits + item * experts, experts, top_k,
                             routing.expert + item * top_k);
            routing_close(&routing);
        }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("gate");
    tcase_add_test(tests, softmax_scores);
    tcase_add_test(tests, sigmoid_scores);
    tcase_add_test(tests, logits_as_scores);
    tcase_add_test(tests, ties_go_to_the_lower_index);
    tcase_add_test(tests, all_experts_or_only_one);
    tcase_add_test(tests, a_bias_selects_but_does_not_weigh);
    tcase_add_test(tests, nan_is_the_worst_logit);
    tcase_add_loop_test(tests, no_logits_do_harm, 0, 4);
    tcase_add_test(tests, an_evil_bias_still_selects_distinct_experts);
    tcase_add_test(tests, statistics_are_sums_over_items);
    tcase_add_test(tests, p_is_the_gates_distribution_before_selection);
    tcase_add_test(tests, the_only_expert_has_the_whole_margin);
    tcase_add_test(tests, distributions_are_kept_on_demand);
    tcase_add_test(tests, the_choice_outlives_its_dropping);
    tcase_add_test(tests, each_forward_counts_anew);
    tcase_add_test(tests, selection_agrees_with_counting);
    tcase_set_timeout(tests, TEST_SECONDS);
    return run_suite("gate", tests);
}

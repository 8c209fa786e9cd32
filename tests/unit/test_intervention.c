/* What rows want of their gates instead of their own decision: equal bit for bit to a gate whose
 * logits were edited, for every kind of gate, alone and among rows that want something else. */
#include <dirent.h>

#include "core/intervention.h"
#include "core/moe/select.h"
#include "golden.h"

enum { ITEMS = 24, MAX_TEST_EXPERTS = 12 };

/* ---- gates ---- */

struct decided {
    struct routing routing;
    struct moed_gate_info info;
};

static struct moed_gate_info info_of(const struct gate *gate)
{
    const struct gate_policy *policy = &gate->policy;
    return (struct moed_gate_info){.name = "m",
                                   .experts = policy->experts,
                                   .top_k = policy->top_k,
                                   .limited = policy->capacity.limited,
                                   .fixed_top_k = policy->score->fixed_top_k,
                                   .groups = policy->groups,
                                   .groups_kept = policy->groups_kept,
                                   .group_experts = policy_group_experts(policy),
                                   .items_per_row = 1};
}

static struct decided decide(const struct gate *gate, const float *logits,
                             const struct moed_span spans[2])
{
    struct error err = ERROR_INIT;
    struct decided decided = {.info = info_of(gate)};
    const struct run run = {.spans = spans, .span_count = 2};
    float *copy = xmalloc(ITEMS * gate->policy.experts * sizeof *copy);
    memcpy(copy, logits, ITEMS * gate->policy.experts * sizeof *copy);
    ck_assert_int_eq(routing_init(&decided.routing, &decided.info, ITEMS, true, &err), 0);
    gate_select(gate, &run, ITEMS, copy, &decided.routing);
    free(copy);
    return decided;
}

/* Items [first, end): the leading `k` slots are alike, and those beyond are empty. */
static void expect_alike(const struct decided *got, const struct decided *edited, size_t k,
                         size_t first, size_t end)
{
    const struct moed_routing *a = &got->routing.decisions, *b = &edited->routing.decisions;
    for (size_t i = first; i < end; i++) {
        const int32_t *expert = a->expert + i * a->top_k;
        const float *weight = a->weight + i * a->top_k;
        ck_assert_mem_eq(expert, b->expert + i * b->top_k, k * sizeof *expert);
        ck_assert_mem_eq(weight, b->weight + i * b->top_k, k * sizeof *weight);
        for (size_t slot = k; slot < a->top_k; slot++)
            ck_assert(expert[slot] == -1 && weight[slot] == 0);
        for (size_t slot = k; slot < b->top_k; slot++) /* an edited gate must choose something */
            ck_assert(b->weight[i * b->top_k + slot] == 0);
    }
    ck_assert_mem_eq(a->probability + first * a->experts, b->probability + first * a->experts,
                     (end - first) * a->experts * sizeof(float));
    ck_assert_mem_eq(a->entropy + first, b->entropy + first, (end - first) * sizeof(float));
}

/* A gate with logits, and what is asked of it: experts left out, a smaller top_k. */
struct asked {
    struct gate gate;
    uint32_t excluded;
    size_t top_k; /* 0: nothing said */
    float logits[ITEMS * MAX_TEST_EXPERTS];
};

/* The same by hand: logits and selection biases of minus infinity, another top_k. `k`: that
 * applies. */
static struct asked edit(const struct asked *asked, size_t k, float *bias)
{
    struct asked edited = *asked;
    const struct gate_policy *policy = &asked->gate.policy;
    const float *own = asked->gate.select_bias.values;
    for (size_t i = 0; i < ITEMS * policy->experts; i++)
        if (asked->excluded >> i % policy->experts & 1)
            edited.logits[i] = -INFINITY;
    for (size_t e = 0; e < policy->experts; e++)
        bias[e] = asked->excluded >> e & 1 ? -INFINITY : own ? own[e] : 0;
    edited.gate.select_bias.values = policy->score->no_bias ? NULL : bias;
    /* A dense gate that must choose what is left out does so last, with weight 0. */
    if (policy->top_k != policy->experts || asked->top_k || policy->capacity.limited)
        edited.gate.policy.top_k = k;
    return edited;
}

/* Half the items want nothing, the others what is asked for. */
static void compare(const struct asked *asked)
{
    struct error err = ERROR_INIT;
    const struct gate *gate = &asked->gate;
    const struct moed_gate_info gate_info = info_of(gate);
    const struct moed_model_info info = {.gate_count = 1, .gates = &gate_info};
    struct moed_intervention *intervention = moed_intervention_new(&info);
    float bias[MAX_TEST_EXPERTS];
    intervention->gates[0].top_k = asked->top_k;
    for (size_t e = 0; e < gate->policy.experts; e++)
        if (asked->excluded >> e & 1)
            moed_intervention_exclude(intervention, &info, 0, (int32_t)e);
    if (moed_intervention_finish(intervention, &info, &err) == 0) {
        const size_t half = ITEMS / 2, all = gate->policy.top_k;
        const size_t k = intervention->gates[0].top_k ? intervention->gates[0].top_k : all;
        const struct moed_span spans[] = {{.rows = half},
                                          {.rows = half, .intervention = intervention}};
        const struct moed_span plain[] = {{.rows = half}, {.rows = half}};
        const struct asked edited = edit(asked, k, bias);
        struct decided got = decide(gate, asked->logits, spans);
        struct decided untouched = decide(gate, asked->logits, plain);
        struct decided by_hand = decide(&edited.gate, edited.logits, plain);
        expect_alike(&got, &untouched, all, 0, half);
        expect_alike(&got, &by_hand, k, half, ITEMS);
        routing_close(&got.routing);
        routing_close(&untouched.routing);
        routing_close(&by_hand.routing);
    }
    moed_intervention_free(intervention);
}

static const struct gate_score *const SCORES[] = {&score_softmax, &score_sigmoid, &score_none,
                                                  &score_sqrt_softplus, &score_sparsemixer};
static const struct gate_normalize *const NORMALIZATIONS[] = {&normalize_none, &normalize_sum,
                                                              &normalize_softmax, &normalize_lp};

static struct gate_policy random_policy(const struct gate_score *score,
                                        const struct gate_normalize *normalize, int round,
                                        uint32_t *random)
{
    const size_t experts = 2 + next_random(random) % (MAX_TEST_EXPERTS - 1);
    struct gate_policy policy = {.experts = experts,
                                 .top_k = 1 + next_random(random) % experts,
                                 .score = score,
                                 .normalize = normalize,
                                 .scale = 1.5f,
                                 .p = 3,
                                 .jitter = 0.1f};
    if (score->fixed_top_k)
        policy.top_k = 2;
    for (size_t groups = 2; round % 3 == 0 && groups <= experts / 2; groups++)
        if (experts % groups == 0 && experts / groups * (groups - 1) >= policy.top_k) {
            policy.groups = groups;
            policy.groups_kept = groups - 1;
            policy.group_score = round % 2 ? GROUP_TOP2 : GROUP_MAX;
        }
    policy.capacity = (struct capacity){.limited = round % 5 == 0,
                                        .factor = 0.8,
                                        .minimum = 1,
                                        .order = (int)(next_random(random) % 4),
                                        .renormalizes = normalize == &normalize_sum};
    return policy;
}

/* Loop index: a score with a normalization. */
START_TEST(left_out_is_a_logit_of_minus_infinity)
{
    uint32_t random = 1 + (uint32_t)_i;
    const struct gate_score *score = SCORES[_i / 4];
    const struct gate_normalize *normalize = NORMALIZATIONS[_i % 4];
    if (score->fixed_top_k && normalize != &normalize_none)
        return;
    for (int round = 0; round < 1500; round++) {
        float bias[MAX_TEST_EXPERTS];
        struct asked asked = {.gate.policy = random_policy(score, normalize, round, &random)};
        const size_t experts = asked.gate.policy.experts;
        if (score == &score_none && asked.gate.policy.top_k == experts)
            continue; /* weights of minus infinity: no gate of that kind can be edited so */
        for (size_t i = 0; i < ITEMS * experts; i++)
            asked.logits[i] = (float)(next_random(&random) % 2001) / 250 - 4;
        for (size_t e = 0; e < experts; e++)
            bias[e] = (float)(next_random(&random) % 100) / 50;
        if (round % 2 && !score->no_bias)
            asked.gate.select_bias.values = bias;
        asked.top_k = next_random(&random) % 3 ? 0 : 1 + next_random(&random) % experts;
        asked.excluded = next_random(&random) & ((1u << experts) - 1);
        compare(&asked);
    }
}
END_TEST

/* ---- models ---- */

/* Routes the rows of a case with these spans. */
static void run_spans(const struct golden *golden, struct moed_scratch *scratch,
                      const struct moed_span *spans, size_t count, float **outputs)
{
    moed_forward(golden->model, scratch, NULL,
                 &(struct moed_batch){.spans = spans,
                                      .span_count = count,
                                      .inputs = (const void *const *)golden->input,
                                      .outputs = outputs});
}

/* Something else for every expert that can be asked for alone. */
static struct moed_intervention *intervention_for(const struct golden *golden, size_t i)
{
    struct error err = ERROR_INIT;
    const struct moed_model_info *info = golden->info;
    struct moed_intervention *intervention = moed_intervention_new(info);
    for (size_t gate = 0; gate < info->gate_count; gate++) {
        const int32_t expert = (int32_t)(i % info->gates[gate].experts);
        if (i % 3 == 0)
            moed_intervention_exclude(intervention, info, gate, expert);
        else if (i % 3 == 1)
            moed_intervention_silence(intervention, info, gate, expert);
        else
            intervention->gates[gate].top_k = (info->gates[gate].top_k + 1) / 2;
    }
    if (moed_intervention_finish(intervention, info, &err) == 0)
        return intervention;
    moed_intervention_free(intervention);
    return NULL;
}

static float **outputs_for(const struct golden *golden)
{
    const struct moed_model_info *info = golden->info;
    float **outputs = xcalloc(info->output_count, sizeof *outputs);
    for (size_t i = 0; i < info->output_count; i++)
        outputs[i] = xcalloc(golden->rows * info->outputs[i].elements, sizeof(float));
    return outputs;
}

static void expect_same_rows(const struct golden *golden, float *const *got, float *const *expected,
                             size_t first, size_t rows)
{
    for (size_t i = 0; i < golden->info->output_count; i++) {
        const size_t elements = golden->info->outputs[i].elements;
        if (memcmp(got[i] + first * elements, expected[i] + first * elements,
                   rows * elements * sizeof(float)) != 0)
            ck_abort_msg("%s: rows from %zu differ among others", golden->name, first);
    }
}

/* Every request of the case wants something else; each alone gets what it gets among all. A batch
 * of one kind is made of equal spans, because inputs are not moved. */
static void mix(struct golden *golden)
{
    struct error err = ERROR_INIT;
    const size_t count = golden->request_count;
    struct moed_scratch *scratch = new_scratch(golden->model, golden->rows, 1, &err);
    struct moed_span *spans = xcalloc(count, sizeof *spans), *alike = xcalloc(count, sizeof *spans);
    float **mixed = outputs_for(golden), **uniform = outputs_for(golden);
    for (size_t i = 0; i < count; i++)
        spans[i] = (struct moed_span){.rows = golden->request_rows[i],
                                      .intervention = i % 4 ? intervention_for(golden, i) : NULL};
    run_spans(golden, scratch, spans, count, mixed);
    for (size_t i = 0, row = 0; i < count; row += spans[i++].rows) {
        for (size_t other = 0; other < count; other++)
            alike[other] = (struct moed_span){.rows = spans[other].rows,
                                              .intervention = spans[i].intervention};
        run_spans(golden, scratch, alike, count, uniform);
        expect_same_rows(golden, mixed, uniform, row, spans[i].rows);
    }
    for (size_t i = 0; i < count; i++)
        moed_intervention_free((struct moed_intervention *)spans[i].intervention);
    free_all((void **)mixed, golden->info->output_count);
    free_all((void **)uniform, golden->info->output_count);
    free(spans);
    free(alike);
    moed_scratch_free(scratch);
}

START_TEST(rows_keep_their_bits_among_others)
{
    struct dirent **entries;
    setenv("MOED_KERNEL", "generic", 1);
    const int count = scandir(cases_directory, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            struct golden golden = load_case(entries[i]->d_name);
            if (golden.info->gate_count > 0 && golden.request_count <= 64)
                mix(&golden);
            free_case(&golden);
        }
        free(entries[i]);
    }
    free(entries);
}
END_TEST

/* ---- what is refused ---- */

static void expect_no(const struct moed_gate_info *gate, uint32_t excluded, size_t top_k,
                      const char *part)
{
    struct error err = ERROR_INIT;
    const struct moed_model_info info = {.gate_count = 1, .gates = gate};
    struct moed_intervention *intervention = moed_intervention_new(&info);
    intervention->gates[0].top_k = top_k;
    for (int32_t e = 0; e < (int32_t)gate->experts; e++)
        if (excluded >> e & 1)
            moed_intervention_exclude(intervention, &info, 0, e);
    ck_assert_int_eq(moed_intervention_finish(intervention, &info, &err), -1);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    expect_text(err.text, part);
    moed_intervention_free(intervention);
}

START_TEST(what_a_gate_cannot_do_is_refused)
{
    struct moed_gate_info gate = {.name = "moe.a", .experts = 8, .top_k = 2};
    expect_no(&gate, 0xFF, 0, "gate 'moe.a': 0 of its 8 experts are left");
    expect_no(&gate, 0x7F, 0, "1 of its 8 experts are left, fewer than top_k 2; ask for a smaller");
    expect_no(&gate, 0, 3, "top_k is 3, expected 1 to 2");
    gate.fixed_top_k = true;
    expect_no(&gate, 0, 1, "its weights are defined for top_k 2, not for 1");
    gate.fixed_top_k = false;
    gate.groups = 4;
    gate.groups_kept = 2;
    gate.group_experts = 2;
    expect_no(&gate, 0x04, 0, "1 expert of group 1 is left, and groups are valued by their best 2");
    expect_no(&gate, 0x3F, 0, "1 group of experts left, and it chooses from 2");
    gate.group_experts = 1;
    gate.groups_kept = 1;
    expect_no(&gate, 0x04, 0, "its choice of groups may leave 1 expert, fewer than top_k 2");
}
END_TEST

START_TEST(a_dense_gate_uses_what_is_left)
{
    struct error err = ERROR_INIT;
    const struct moed_gate_info gate = {.name = "m", .experts = 70, .top_k = 70};
    const struct moed_model_info info = {.gate_count = 1, .gates = &gate};
    struct moed_intervention *intervention = moed_intervention_new(&info);
    struct moed_intervention *more = moed_intervention_new(&info);
    moed_intervention_exclude(intervention, &info, 0, 69);
    moed_intervention_exclude(more, &info, 0, 3);
    moed_intervention_silence(more, &info, 0, 64);
    moed_intervention_add(intervention, &info, more);
    ck_assert_int_eq(moed_intervention_finish(intervention, &info, &err), 0);
    ck_assert_uint_eq(intervention->gates[0].top_k, 68);
    ck_assert(moed_override_has(intervention->gates[0].silenced, 64));
    ck_assert(!moed_override_has(intervention->gates[0].silenced, 3));
    moed_intervention_free(intervention);
    moed_intervention_free(more);
}
END_TEST

START_TEST(experts_go_by_their_layers_indices)
{
    const int32_t index[] = {1, 4, 6};
    const struct moed_gate_info some = {.experts = 3, .expert_index = index}, all = {.experts = 3};
    ck_assert_int_eq(moed_gate_find_expert(&some, 4), 1);
    ck_assert_int_eq(moed_gate_find_expert(&some, 2), -1);
    ck_assert_int_eq(moed_gate_find_expert(&all, 2), 2);
    ck_assert_int_eq(moed_gate_find_expert(&all, 3), -1);
    ck_assert_int_eq(moed_gate_find_expert(&all, -1), -1);
    ck_assert_int_eq(moed_gate_find_expert(&all, INT64_MIN), -1);
}
END_TEST

int main(void)
{
    enum {
        KINDS = sizeof SCORES / sizeof *SCORES * sizeof NORMALIZATIONS / sizeof *NORMALIZATIONS
    };
    TCase *tests = tcase_create("intervention");
    tcase_set_timeout(tests, TEST_SECONDS);
    tcase_add_loop_test(tests, left_out_is_a_logit_of_minus_infinity, 0, KINDS);
    tcase_add_test(tests, rows_keep_their_bits_among_others);
    tcase_add_test(tests, what_a_gate_cannot_do_is_refused);
    tcase_add_test(tests, a_dense_gate_uses_what_is_left);
    tcase_add_test(tests, experts_go_by_their_layers_indices);
    return run_suite("intervention", tests);
}

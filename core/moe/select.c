/* Which experts serve an item, and with what weight; core/CHECKPOINT.md defines every option.
 *
 * 1. The gate's score (score.c) says what each expert is worth.
 * 2. The top_k largest keys are chosen, score + select_bias, of the experts in the best groups.
 * Ties go to the lower index.
 * 3. The gate's normalization (normalize.c) weighs the chosen ones; its scale multiplies.
 * 4. An expert whose capacity is taken drops what comes after (capacity.c).
 *
 * Rows that ask for it leave experts out of 1. and 2., or choose fewer of them (intervention.h).
 *
 * Everything an item needs stays in cache from its logits to its weights. */
#include "core/moe/select.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/dense/vector.h"
#include "core/intervention.h"
#include "core/moe/capacity.h"

/* The indices of the `k` largest values, best first. Inserts every index into a list of the best so
 * far; only a strictly larger value moves ahead, so ties keep the lower index first. O(count * k),
 * and k is small. */
static void top_k(const float *values, size_t count, size_t k, int32_t *chosen)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = i < k ? i : k;
        while (at > 0 && values[i] > values[chosen[at - 1]]) {
            if (at < k)
                chosen[at] = chosen[at - 1];
            at--;
        }
        if (at < k)
            chosen[at] = (int32_t)i;
    }
}

/* Half the sum of the two best, which ranks groups as the sum does and never is infinite. */
static float group_value(const struct gate_policy *policy, const float *keys, size_t size)
{
    int32_t best[2] = {0, 0};
    const size_t count = policy_group_experts(policy);
    top_k(keys, size, count, best);
    return count == 2 ? 0.5f * keys[best[0]] + 0.5f * keys[best[1]] : keys[best[0]];
}

/* Experts outside the best groups get the key -infinity, which no other expert has. */
static void limit_groups(const struct gate_policy *policy, float *keys)
{
    float values[MAX_GROUPS];
    int32_t kept[MAX_GROUPS];
    bool is_kept[MAX_GROUPS] = {false};
    const size_t size = policy->experts / policy->groups;
    for (size_t group = 0; group < policy->groups; group++)
        values[group] = group_value(policy, keys + group * size, size);
    top_k(values, policy->groups, policy->groups_kept, kept);
    for (size_t i = 0; i < policy->groups_kept; i++)
        is_kept[kept[i]] = true;
    for (size_t e = 0; e < policy->experts; e++)
        if (!is_kept[e / size])
            keys[e] = -INFINITY;
}

/* How the items of a span are routed. */
struct rule {
    const struct gate *gate;
    const struct gate_policy *policy;          /* the gate's, or with the top_k that is asked for */
    const struct moed_gate_override *override; /* NULL: none */
};

/* Sets what stands at the excluded experts. */
static void exclude(const struct rule *rule, float least, float *values)
{
    const uint64_t *excluded = rule->override ? rule->override->excluded : NULL;
    for (size_t e = 0; excluded && e < rule->policy->experts; e++)
        values[e] = moed_override_has(excluded, e) ? least : values[e];
}

static void select_experts(const struct rule *rule, const float *scores, float *keys,
                           int32_t *chosen)
{
    const struct gate_policy *policy = rule->policy;
    const float *bias = rule->gate->select_bias.values;
    for (size_t e = 0; e < policy->experts; e++)
        keys[e] = scores[e] + (bias ? bias[e] : 0.0f);
    if (bias)
        clamp_finite(keys, policy->experts);
    exclude(rule, -INFINITY, keys);
    if (policy->groups)
        limit_groups(policy, keys);
    top_k(keys, policy->experts, policy->top_k, chosen);
}

static void weigh(const struct rule *rule, const struct choice *choice, float *weights)
{
    const struct gate_policy *policy = rule->policy;
    const float *each = rule->gate->expert_scale.values;
    (policy->score->weigh ? policy->score->weigh : policy->normalize->weigh)(policy, choice,
                                                                             weights);
    for (size_t slot = 0; slot < policy->top_k; slot++)
        weights[slot] *= each ? policy->scale * each[choice->expert[slot]] : policy->scale;
    clamp_finite(weights, policy->top_k);
}

static void leave_pairs(struct routing *routing, size_t first, size_t end)
{
    for (size_t pair = first; pair < end; pair++) {
        routing->choice[pair] = -1;
        routing->weight[pair] = 0;
        if (routing->score)
            routing->score[pair] = 0;
    }
}

/* Padding is routed nowhere, and counts for nothing. */
static void leave(const struct gate *gate, size_t item, struct routing *routing)
{
    size_t k = gate->policy.top_k, experts = gate->policy.experts;
    leave_pairs(routing, item * k, (item + 1) * k);
    if (!routing->probability)
        return;
    memset(routing->probability + item * experts, 0, experts * sizeof *routing->probability);
    routing->entropy[item] = routing->margin[item] = 0;
}

/* Of `per_row` items of every row. */
static bool is_padding(const struct run *run, size_t item, size_t per_row)
{
    return run->lengths &&
           item % per_row / (per_row / run->positions) >= run_length(run, item / per_row);
}

/* Calls the chosen experts what the layer calls them. */
static void name_experts(const struct gate *gate, struct routing *routing)
{
    const size_t pairs = routing->decisions.items * gate->policy.top_k;
    memcpy(routing->expert, routing->choice, pairs * sizeof *routing->expert);
    for (size_t pair = 0; gate->expert_index && pair < pairs; pair++)
        if (routing->choice[pair] >= 0)
            routing->expert[pair] = gate->expert_index[routing->choice[pair]];
}

/* Written without branches: which of two experts is likelier is not to be guessed. */
static float margin_of(const float *p, size_t count)
{
    float first = 0, second = 0;
    for (size_t i = 0; i < count; i++) {
        const float less = p[i] < first ? p[i] : first;
        first = p[i] > first ? p[i] : first;
        second = less > second ? less : second;
    }
    return first - second;
}

/* Decides for one item; p: [experts] gets the gate's distribution. Returns its entropy in nats. */
static float decide(const struct rule *rule, float *logits, size_t item, struct routing *routing,
                    float *p)
{
    const struct gate_policy *policy = rule->policy;
    const size_t stride = rule->gate->policy.top_k, first = item * stride;
    int32_t *chosen = routing->choice + first;
    clamp_finite(logits, policy->experts);
    exclude(rule, -FLT_MAX, logits);
    const float entropy = policy->score->score(policy, logits, routing->scores, p);
    select_experts(rule, routing->scores, routing->keys, chosen);
    const struct choice choice = {logits, routing->scores, routing->keys, chosen};
    weigh(rule, &choice, routing->weight + first);
    for (size_t slot = 0; routing->score && slot < policy->top_k; slot++)
        routing->score[first + slot] = routing->scores[chosen[slot]];
    leave_pairs(routing, first + policy->top_k, first + stride);
    return entropy;
}

static void route_item(const struct rule *rule, float *logits, size_t item, struct routing *routing)
{
    const double bits_per_nat = 1.4426950408889634;
    const size_t experts = rule->policy->experts;
    float *p = routing->probability ? routing->probability + item * experts : routing->p;
    const float entropy = decide(rule, logits, item, routing, p);
    if (!routing->probability)
        return;
    routing->entropy[item] = (float)((double)entropy * bits_per_nat);
    routing->margin[item] = margin_of(p, experts);
}

void gate_select(const struct gate *gate, const struct run *run, size_t items, float *logits,
                 struct routing *routing)
{
    const size_t per_row = items / batch_rows(run);
    size_t item = 0;
    routing->decisions.items = items;
    for (size_t i = 0; i < run->span_count; i++) {
        struct rule rule = {gate, &gate->policy, moed_override_of(&run->spans[i], gate->index)};
        struct gate_policy policy;
        if (rule.override) {
            policy = gate->policy;
            policy.top_k = rule.override->top_k;
            rule.policy = &policy;
        }
        for (size_t end = item + run->spans[i].rows * per_row; item < end; item++) {
            if (is_padding(run, item, per_row))
                leave(gate, item, routing);
            else
                route_item(&rule, logits + item * gate->policy.experts, item, routing);
        }
    }
    name_experts(gate, routing);
    if (gate->policy.capacity.limited)
        limit_items(&gate->policy, run, routing);
}

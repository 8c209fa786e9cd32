/* Pairs of a group stand in line and take places until an expert has none left. */
#include "core/moe/capacity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Consecutive items that compete for places. */
struct group {
    const struct gate_policy *policy;
    size_t first, items;
};

/* `routed`: its items but padding. */
static double places_of(const struct group *group, size_t routed)
{
    const struct capacity *capacity = &group->policy->capacity;
    double items = (double)routed;
    if (capacity->factor == 0)
        return capacity->places;
    double share = items * capacity->factor / (double)group->policy->experts;
    share = capacity->rounds_up ? ceil(share) : floor(share);
    return fmax(fmin(share, items), capacity->minimum);
}

/* Higher scores first; of equal ones the earlier. */
static int compare(const void *a, const void *b)
{
    const struct placing *left = a, *right = b;
    if (left->score != right->score)
        return left->score > right->score ? -1 : 1;
    return left->pair < right->pair ? -1 : 1;
}

/* Every pair of the group, in the order in which it is placed. */
static void stand_in_line(const struct group *group, struct routing *routing)
{
    size_t k = group->policy->top_k, begin = group->first * k, count = group->items * k;
    int order = group->policy->capacity.order;
    struct placing *line = routing->line;
    if (order == PLACE_ITEMS || order == PLACE_PAIRS) {
        for (size_t i = 0; i < count; i++)
            line[i] = (struct placing){routing->score[begin + i], (uint32_t)(begin + i)};
        if (order == PLACE_PAIRS)
            qsort(line, count, sizeof *line, compare);
        return;
    }
    /* First choices of all items, then second ones: items in order, or the surest first. */
    for (size_t i = 0; i < group->items; i++)
        line[i] = (struct placing){routing->score[begin + i * k], (uint32_t)(begin + i * k)};
    if (order == PLACE_SCORES)
        qsort(line, group->items, sizeof *line, compare);
    for (size_t i = group->items; i < count; i++)
        line[i].pair = line[i - group->items].pair + 1;
}

/* The weights of an item's pairs, from `first` on, that were not dropped, shared out to what all of
 * them were. */
static void renormalize(const struct gate_policy *policy, struct routing *routing, size_t first)
{
    const int32_t *expert = routing->expert + first, *choice = routing->choice + first;
    float *weight = routing->weight + first, sum = 0;
    size_t kept = 0, chosen = 0;
    for (size_t slot = 0; slot < policy->top_k; slot++) {
        sum += weight[slot];
        kept += expert[slot] >= 0;
        chosen += choice[slot] >= 0;
    }
    for (size_t slot = 0; slot < policy->top_k && kept < chosen; slot++)
        if (expert[slot] >= 0)
            weight[slot] =
                sum != 0 ? weight[slot] / sum * policy->scale : policy->scale / (float)chosen;
    clamp_finite(weight, policy->top_k);
}

static void limit_group(const struct group *group, struct routing *routing)
{
    const struct gate_policy *policy = group->policy;
    size_t k = policy->top_k, routed = 0;
    for (size_t i = group->first; i < group->first + group->items; i++)
        routed += routing->choice[i * k] >= 0;
    double places = places_of(group, routed);
    stand_in_line(group, routing);
    memset(routing->places, 0, policy->experts * sizeof *routing->places);
    for (size_t i = 0; i < group->items * k; i++) {
        size_t pair = routing->line[i].pair;
        if (routing->choice[pair] < 0)
            continue;
        uint32_t *taken = &routing->places[routing->choice[pair]];
        if (*taken < places) {
            ++*taken;
            continue;
        }
        routing->expert[pair] = -1;
        routing->weight[pair] = 0;
    }
    for (size_t i = group->first; policy->capacity.renormalizes && i < group->first + group->items;
         i++)
        renormalize(policy, routing, i * k);
}

void limit_items(const struct gate_policy *policy, const struct run *run, struct routing *routing)
{
    size_t first = 0, items_per_row = routing->decisions.items / batch_rows(run);
    for (size_t i = 0; i < run->span_count; i++) {
        size_t most = policy->capacity.rows ? policy->capacity.rows : run->spans[i].rows;
        for (size_t row = 0; row < run->spans[i].rows; row += most) {
            size_t left = run->spans[i].rows - row, count = left < most ? left : most;
            limit_group(&(struct group){policy, first, count * items_per_row}, routing);
            first += count * items_per_row;
        }
    }
}

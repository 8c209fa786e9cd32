/* Counts are one block of plain numbers, so that they can be added, subtracted and copied as
 * values. */
#include "core/gate_counts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/moed.h"

static size_t bytes_of(size_t experts)
{
    return sizeof(struct moed_gate_counts) + experts * sizeof(struct moed_expert_counts);
}

struct moed_gate_counts *moed_gate_counts_new(size_t experts)
{
    struct moed_gate_counts *counts = xcalloc(1, bytes_of(experts));
    counts->experts = experts;
    return counts;
}

void moed_gate_counts_free(struct moed_gate_counts *counts)
{
    free(counts);
}

void moed_gate_counts_reset(struct moed_gate_counts *counts)
{
    const size_t experts = counts->experts;
    memset(counts, 0, bytes_of(experts));
    counts->experts = experts;
}

static void count_selections(struct moed_gate_counts *counts, const struct moed_routing *routing,
                             size_t item)
{
    const size_t k = routing->top_k;
    const int32_t *expert = routing->expert + item * k, *choice = routing->choice + item * k;
    const float *weight = routing->weight + item * k;
    counts->expert[choice[0]].top1++;
    for (size_t slot = 0; slot < k; slot++) {
        if (expert[slot] < 0) {
            counts->dropped++;
            continue;
        }
        counts->expert[choice[slot]].selected++;
        counts->expert[choice[slot]].weight += (double)weight[slot];
    }
}

static void count_distribution(struct moed_gate_counts *counts, const struct moed_routing *routing,
                               size_t item)
{
    const float *p = routing->probability + item * routing->experts;
    for (size_t e = 0; e < routing->experts; e++)
        counts->expert[e].probability += (double)p[e];
    counts->entropy += (double)routing->entropy[item];
    counts->margin += (double)routing->margin[item];
}

void moed_gate_counts_count(struct moed_gate_counts *counts, const struct moed_routing *routing,
                            size_t first, size_t end)
{
    assert(counts->experts == routing->experts && first <= end && end <= routing->items);
    counts->items += end - first;
    for (size_t item = first; item < end; item++) {
        count_selections(counts, routing, item);
        if (routing->probability)
            count_distribution(counts, routing, item);
    }
}

void moed_gate_counts_add(struct moed_gate_counts *to, const struct moed_gate_counts *from)
{
    assert(to->experts == from->experts);
    to->items += from->items;
    to->dropped += from->dropped;
    to->entropy += from->entropy;
    to->margin += from->margin;
    for (size_t e = 0; e < to->experts; e++) {
        to->expert[e].selected += from->expert[e].selected;
        to->expert[e].top1 += from->expert[e].top1;
        to->expert[e].weight += from->expert[e].weight;
        to->expert[e].probability += from->expert[e].probability;
    }
}

void moed_gate_counts_subtract(struct moed_gate_counts *from, const struct moed_gate_counts *then)
{
    assert(from->experts == then->experts);
    from->items -= then->items;
    from->dropped -= then->dropped;
    from->entropy -= then->entropy;
    from->margin -= then->margin;
    for (size_t e = 0; e < from->experts; e++) {
        from->expert[e].selected -= then->expert[e].selected;
        from->expert[e].top1 -= then->expert[e].top1;
        from->expert[e].weight -= then->expert[e].weight;
        from->expert[e].probability -= then->expert[e].probability;
    }
}

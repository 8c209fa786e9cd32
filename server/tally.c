/* Loops over the gates. */
#include "server/tally.h"

#include <stdlib.h>

#include "core/memory.h"

static struct tally *allocate(size_t gate_count)
{
    struct tally *tally = xcalloc(1, sizeof *tally + gate_count * sizeof tally->gates[0]);
    tally->gate_count = gate_count;
    return tally;
}

struct tally *tally_new(const struct moed_model_info *info)
{
    struct tally *tally = allocate(info->gate_count);
    for (size_t i = 0; i < info->gate_count; i++)
        tally->gates[i] = moed_gate_counts_new(info->gates[i].experts);
    return tally;
}

struct tally *tally_empty(const struct tally *like)
{
    struct tally *tally = allocate(like->gate_count);
    for (size_t i = 0; i < like->gate_count; i++)
        tally->gates[i] = moed_gate_counts_new(like->gates[i]->experts);
    return tally;
}

struct tally *tally_copy(const struct tally *tally)
{
    struct tally *copy = tally_empty(tally);
    tally_add(copy, tally);
    return copy;
}

void tally_free(struct tally *tally)
{
    if (!tally)
        return;
    for (size_t i = 0; i < tally->gate_count; i++)
        moed_gate_counts_free(tally->gates[i]);
    free(tally);
}

void tally_count(struct tally *tally, const struct tally_batch *batch, size_t first, size_t end)
{
    tally->rows += end - first;
    for (size_t i = 0; i < tally->gate_count; i++) {
        const struct moed_routing *routing = batch->routing[i];
        size_t items_per_row = routing->items / batch->rows;
        moed_gate_counts_count(tally->gates[i], routing, first * items_per_row, end * items_per_row,
                               batch->now);
    }
}

void tally_add(struct tally *to, const struct tally *from)
{
    to->rows += from->rows;
    for (size_t i = 0; i < to->gate_count; i++)
        moed_gate_counts_add(to->gates[i], from->gates[i]);
}

void tally_subtract(struct tally *from, const struct tally *then)
{
    from->rows -= then->rows;
    for (size_t i = 0; i < from->gate_count; i++)
        moed_gate_counts_subtract(from->gates[i], then->gates[i]);
}

bool tally_fits(const struct tally *tally, const struct moed_model_info *info)
{
    bool fits = tally->gate_count == info->gate_count;
    for (size_t i = 0; fits && i < info->gate_count; i++)
        fits = tally->gates[i]->experts == info->gates[i].experts;
    return fits;
}

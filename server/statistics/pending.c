/* Written once and read once, each from its beginning to its end. */
#include "server/statistics/pending.h"

#include <stdlib.h>

#include "core/memory.h"

enum {
    MOST_ROWS = 256,
    MOST_BYTES = 1 << 17,
    FEWEST_ROWS = 16,
    /* More rows of a step share the way to the counters among themselves. */
    SMALL_BATCH = 16,
};

static size_t bytes_per_row(const struct moed_model_info *info)
{
    size_t bytes = sizeof(struct pending_row) + sizeof(uint64_t);
    for (size_t i = 0; i < info->gate_count; i++)
        bytes += moed_gate_record_bytes(info->gates[i].experts, info->gates[i].top_k);
    return bytes;
}

static size_t room_of(const struct moed_model_info *info)
{
    if (!info->sequence || info->gate_count == 0)
        return 0;
    for (size_t i = 0; i < info->gate_count; i++)
        if (info->gates[i].items_per_row != 1)
            return 0;
    const size_t rows = MOST_BYTES / bytes_per_row(info);
    return rows < FEWEST_ROWS ? 0 : rows < MOST_ROWS ? rows : MOST_ROWS;
}

void pending_init(struct pending *pending, const struct moed_model_info *info)
{
    *pending = (struct pending){.room = room_of(info)};
    if (pending->room == 0)
        return;
    pending->rows = xcalloc(pending->room, sizeof *pending->rows);
    pending->times = xcalloc(pending->room, sizeof *pending->times);
    pending->gate_count = info->gate_count;
    pending->gates = xcalloc(info->gate_count, sizeof *pending->gates);
    for (size_t i = 0; i < info->gate_count; i++) {
        const struct moed_gate_info *of = &info->gates[i];
        struct pending_gate *gate = &pending->gates[i];
        gate->top_k = of->top_k;
        gate->bytes = moed_gate_record_bytes(of->experts, of->top_k);
        gate->records = xcalloc(pending->room, gate->bytes);
    }
}

void pending_close(struct pending *pending)
{
    for (size_t i = 0; i < pending->gate_count; i++)
        free(pending->gates[i].records);
    free(pending->gates);
    free(pending->rows);
    free(pending->times);
}

bool pending_takes(const struct pending *pending, const struct tally_batch *batch)
{
    if (pending->room == 0 || batch->rows > SMALL_BATCH || batch->scores)
        return false;
    for (size_t i = 0; i < pending->gate_count; i++)
        if (batch->routing[i]->items != batch->rows || !batch->routing[i]->probability ||
            !batch->routing[i]->seconds)
            return false;
    return true;
}

bool pending_has_room(const struct pending *pending, const struct tally_batch *batch)
{
    return batch->rows <= pending->room - pending->count;
}

void pending_add(struct pending *pending, const struct tally_batch *batch, size_t row,
                 const struct pending_row *about)
{
    const size_t place = pending->count++;
    pending->rows[place] = *about;
    pending->times[place] = batch->at;
    for (size_t i = 0; i < pending->gate_count; i++) {
        const struct pending_gate *gate = &pending->gates[i];
        moed_gate_record_write(gate->records + place * gate->bytes, batch->routing[i], row);
    }
}

static bool is_alone(const struct pending *pending, size_t row)
{
    const struct pending_row *of = &pending->rows[row];
    return (row == 0 || of[-1].batch != of->batch) &&
           (row + 1 == pending->count || of[1].batch != of->batch);
}

size_t pending_end_alone(const struct pending *pending, size_t first)
{
    while (first < pending->count && is_alone(pending, first))
        first++;
    return first;
}

void pending_tally(const struct pending *pending, struct tally *tally, size_t first, size_t end)
{
    tally->rows += end - first;
    for (size_t i = 0; i < pending->gate_count; i++) {
        const struct pending_gate *gate = &pending->gates[i];
        moed_gate_counts_count_records(tally->gates[i], gate->records + first * gate->bytes,
                                       gate->top_k, end - first, pending->times + first);
    }
}

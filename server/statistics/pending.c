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
    size_t bytes = sizeof(struct pending_row);
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
    pending->pitch = bytes_per_row(info);
    pending->rows = xcalloc(pending->room, pending->pitch);
    pending->gate_count = info->gate_count;
    pending->gates = xcalloc(info->gate_count, sizeof *pending->gates);
    size_t at = sizeof(struct pending_row);
    for (size_t i = 0; i < info->gate_count; i++) {
        pending->gates[i] = (struct pending_gate){info->gates[i].top_k, at};
        at += moed_gate_record_bytes(info->gates[i].experts, info->gates[i].top_k);
    }
}

void pending_close(struct pending *pending)
{
    free(pending->gates);
    free(pending->rows);
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
    char *place = pending->rows + pending->count++ * pending->pitch;
    *(struct pending_row *)place = *about;
    for (size_t i = 0; i < pending->gate_count; i++)
        moed_gate_record_write(place + pending->gates[i].at, batch->routing[i], row);
}

static bool is_alone(const struct pending *pending, size_t row)
{
    const uint64_t batch = pending_at(pending, row)->batch;
    return (row == 0 || pending_at(pending, row - 1)->batch != batch) &&
           (row + 1 == pending->count || pending_at(pending, row + 1)->batch != batch);
}

size_t pending_end_alone(const struct pending *pending, size_t first)
{
    while (first < pending->count && is_alone(pending, first))
        first++;
    return first;
}

void pending_tally(const struct pending *pending, struct tally *tally, size_t first, size_t end)
{
    const struct pending_row *row = pending_at(pending, first);
    tally->rows += end - first;
    for (size_t i = 0; i < pending->gate_count; i++) {
        const struct pending_gate *gate = &pending->gates[i];
        moed_gate_counts_count_records(
            tally->gates[i], gate->top_k,
            &(struct moed_gate_records){.first = (const char *)row + gate->at,
                                        .time = &row->time,
                                        .pitch = pending->pitch,
                                        .count = end - first});
    }
}

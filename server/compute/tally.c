/* Loops over the gates. */
#include "server/compute/tally.h"

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
    for (size_t i = 0; i < tally->gate_count; i++) {
        moed_gate_counts_free(tally->gates[i]);
        if (tally->quality)
            free(tally->quality[i]);
    }
    free(tally->quality);
    free(tally);
}

void tally_count(struct tally *tally, const struct tally_batch *batch, size_t first, size_t end)
{
    tally->rows += end - first;
    for (size_t i = 0; i < tally->gate_count; i++) {
        const struct moed_routing *routing = batch->routing[i];
        size_t items_per_row = routing->items / batch->rows;
        moed_gate_counts_count(tally->gates[i], routing, first * items_per_row, end * items_per_row,
                               batch->at);
    }
}

void tally_count_intervened(struct tally *tally, const struct tally_batch *batch, size_t first,
                            size_t end)
{
    for (size_t i = 0; i < tally->gate_count; i++) {
        const struct moed_routing *routing = batch->routing[i];
        size_t items_per_row = routing->items / batch->rows;
        moed_gate_counts_count_intervened(tally->gates[i], routing, first * items_per_row,
                                          end * items_per_row);
    }
}

/* ---- labels ---- */

void tally_need_quality(struct tally *tally)
{
    if (tally->quality)
        return;
    tally->quality = xcalloc(tally->gate_count, sizeof *tally->quality);
    for (size_t i = 0; i < tally->gate_count; i++)
        tally->quality[i] = xcalloc(tally->gates[i]->experts, sizeof **tally->quality);
}

static void judge_row(struct tally *tally, struct routing_detail *details,
                      const struct answered_rows *rows, size_t row, size_t truth)
{
    const struct routing_verdict verdict =
        routing_judge(rows->scores + row * rows->classes, rows->classes, truth);
    tally->labelled++;
    for (size_t i = 0; i < tally->gate_count; i++) {
        const size_t items = rows->items_per_row[i];
        for (size_t item = row * items; item < (row + 1) * items; item++) {
            const int32_t expert = rows->first[i][item];
            if (expert < 0) /* padding */
                continue;
            routing_quality_count(&tally->quality[i][expert], &verdict);
            if (details)
                routing_detail_label(&details[i], (size_t)expert, truth, &verdict);
        }
    }
}

/* A model that was reloaded may have more classes than the one that answered. */
void tally_judge(struct tally *tally, struct routing_detail *details,
                 const struct answered_rows *rows, const int32_t *labels)
{
    tally_need_quality(tally);
    for (size_t row = 0; row < rows->rows; row++)
        if (labels[row] >= 0 && (size_t)labels[row] < rows->classes)
            judge_row(tally, details, rows, row, (size_t)labels[row]);
}

static void add_quality(struct tally *to, const struct tally *from, int sign)
{
    if (!from->quality)
        return;
    tally_need_quality(to);
    for (size_t i = 0; i < to->gate_count; i++)
        for (size_t e = 0; e < to->gates[i]->experts; e++)
            routing_quality_add(&to->quality[i][e], &from->quality[i][e], sign);
}

/* ---- arithmetic ---- */

void tally_add(struct tally *to, const struct tally *from)
{
    to->rows += from->rows;
    to->labelled += from->labelled;
    for (size_t i = 0; i < to->gate_count; i++)
        moed_gate_counts_add(to->gates[i], from->gates[i]);
    add_quality(to, from, 1);
}

void tally_subtract(struct tally *from, const struct tally *then)
{
    from->rows -= then->rows;
    from->labelled -= then->labelled;
    for (size_t i = 0; i < from->gate_count; i++)
        moed_gate_counts_subtract(from->gates[i], then->gates[i]);
    add_quality(from, then, -1);
}

void tally_join(struct tally **to, struct tally *from)
{
    if (*to && from)
        tally_add(*to, from);
    if (*to)
        tally_free(from);
    else
        *to = from;
}

bool tally_fits(const struct tally *tally, const struct moed_model_info *info)
{
    bool fits = tally->gate_count == info->gate_count;
    for (size_t i = 0; fits && i < info->gate_count; i++)
        fits = tally->gates[i]->experts == info->gates[i].experts;
    return fits;
}

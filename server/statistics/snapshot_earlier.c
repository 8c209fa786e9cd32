/* Bytes that nobody vouches for may hold any sum. */
#include "server/statistics/snapshot_earlier.h"

#include <math.h>

static double parts_per_weight(const struct moed_gate_counts *totals)
{
    __int128 weights = 0;
    for (size_t i = 0; i < totals->experts; i++)
        weights += totals->expert[i].part;
    return weights > 0 ? (double)(totals->items - totals->overflowed) / moed_sum_value(weights) : 0;
}

static void scale_gate(struct moed_gate_counts *counts, double factor)
{
    for (size_t i = 0; i < counts->experts; i++) {
        const double part = round((double)counts->expert[i].part * factor);
        counts->expert[i].part = fabs(part) < 0x1p120 ? (__int128)part : 0;
    }
}

static void scale(struct tally *tally, const struct tally *totals)
{
    for (size_t i = 0; tally && i < tally->gate_count; i++)
        scale_gate(tally->gates[i], parts_per_weight(totals->gates[i]));
}

void snapshot_make_parts(struct history *history, struct tally *totals)
{
    if (!totals) /* and so is all that was before */
        return;
    scale(history->base, totals);
    for (int window = 0; window < WINDOW_COUNT; window++)
        for (size_t i = 0; i < HISTORY_MARKS; i++)
            scale(history->rings[window].marks[i].totals, totals);
    for (size_t i = 0; i < totals->gate_count; i++)
        scale_gate(totals->gates[i], parts_per_weight(totals->gates[i]));
}

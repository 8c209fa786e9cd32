/* Sums, then tables, then the latest uses in their order. */
#include "server/statistics/snapshot_detail.h"

#include <stdlib.h>

static void walk_cells(struct packed *packed, uint64_t *cells, size_t count)
{
    for (size_t i = 0; i < count; i++)
        packed_count(packed, &cells[i]);
}

static void walk_table(struct packed *packed, struct routing_detail *detail, size_t index)
{
    enum { NOTHING, SOME, LEFT_OUT, STATES };
    size_t cells;
    bool left_out;
    uint64_t *table = routing_detail_table(detail, index, false, &cells, &left_out);
    uint64_t state = left_out ? LEFT_OUT : table ? SOME : NOTHING;
    packed_index(packed, &state, STATES);
    if (packed->failed || state == NOTHING)
        return;
    if (state == LEFT_OUT) {
        routing_detail_leave_out(detail, index);
        return;
    }
    table = routing_detail_table(detail, index, true, &cells, &left_out);
    if (table)
        walk_cells(packed, table, cells);
    packed->failed |= !table;
}

/* Room for uses that are read, each of which takes a byte at least. */
static void make_uses(struct packed *packed, struct routing_detail *detail, uint64_t count)
{
    packed->failed |= count > (size_t)(packed->end - packed->at);
    packed->failed |= count > 0 && !routing_detail_has_uses(detail);
    if (packed->failed || count == 0)
        return;
    detail->recent = calloc(count, sizeof *detail->recent);
    packed->failed |= !detail->recent;
    detail->recorded = detail->room = detail->recent ? count : 0;
}

static void walk_uses(struct packed *packed, struct routing_detail *detail)
{
    uint64_t count = detail->recorded;
    packed_index(packed, &count, UINT64_MAX);
    if (!packed->out)
        make_uses(packed, detail, count);
    for (size_t i = 0; i < detail->recorded; i++) {
        uint64_t expert = detail->recent[i];
        packed_index(packed, &expert, detail->experts);
        detail->recent[i] = (uint16_t)expert;
    }
}

void snapshot_walk_detail(struct packed *packed, int version, struct routing_detail *detail)
{
    packed_count(packed, &detail->batches);
    packed_count(packed, &detail->batch_items);
    packed_count(packed, &detail->batch_experts);
    static const size_t TABLES[] = {0, 4, 5, 5, DETAIL_TABLES}; /* by version */
    for (size_t i = 0; i < TABLES[version]; i++)
        walk_table(packed, detail, i);
    if (version < 4 && detail->truth)
        routing_detail_leave_out(detail, DETAIL_TABLES - 1);
    if (version >= 3)
        walk_uses(packed, detail);
}

/* Sums, then tables, then the quality of cells, then the latest uses in their order. */
#include "server/statistics/snapshot_detail.h"

#include <stdlib.h>
#include <string.h>

void snapshot_walk_quality(struct packed *packed, struct routing_quality *quality)
{
    packed_sum(packed, &quality->log_loss);
    for (size_t i = 0; i < QUALITY_BINS; i++) {
        packed_count(packed, &quality->bins[i].items);
        packed_count(packed, &quality->bins[i].correct);
        packed_sum(packed, &quality->bins[i].confidence);
    }
}

enum { NOTHING, SOME, LEFT_OUT, STATES };

static void walk_cells(struct packed *packed, uint64_t *cells, size_t count)
{
    for (size_t i = 0; i < count; i++)
        packed_count(packed, &cells[i]);
}

/* `counted`: who wrote it knew the table. */
static void walk_table(struct packed *packed, struct routing_detail *detail, size_t index,
                       bool counted)
{
    size_t cells;
    bool left_out;
    uint64_t *table = routing_detail_table(detail, index, false, &cells, &left_out);
    uint64_t state = left_out ? LEFT_OUT : table ? SOME : NOTHING;
    packed_index(packed, &state, STATES);
    if (packed->failed || state == NOTHING || (state == LEFT_OUT && !counted))
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

/* Most pairs of an expert and a class have no items. */
static void walk_cell(struct packed *packed, struct routing_quality *cell)
{
    static const struct routing_quality NONE;
    bool some = memcmp(cell, &NONE, sizeof NONE) != 0;
    packed_flag(packed, &some);
    if (some)
        snapshot_walk_quality(packed, cell);
}

static void walk_qualities(struct packed *packed, struct routing_detail *detail)
{
    bool left_out;
    struct routing_quality *cells = routing_detail_quality(detail, false, &left_out);
    uint64_t state = left_out ? LEFT_OUT : cells ? SOME : NOTHING;
    packed_index(packed, &state, STATES);
    if (packed->failed || state == NOTHING)
        return;
    if (state == LEFT_OUT) {
        routing_detail_leave_out_quality(detail);
        return;
    }
    cells = routing_detail_quality(detail, true, &left_out);
    packed->failed |= !cells;
    for (size_t i = 0; cells && i < detail->experts * detail->classes; i++)
        walk_cell(packed, &cells[i]);
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

/* Those whose pairs are counted. */
static void walk_busiest(struct packed *packed, struct routing_detail *detail)
{
    const struct routing_busiest *busiest = &detail->busiest;
    uint16_t expert[BUSIEST_MAX] = {0};
    bool chosen = busiest->expert;
    uint64_t at = 0;
    packed_flag(packed, &chosen);
    for (size_t i = 0; chosen && !packed->failed && i < busiest->side; i++) {
        uint64_t next = busiest->expert ? busiest->expert[i] : 0;
        packed_index(packed, &next, detail->experts);
        packed->failed |= i > 0 && next <= at;
        expert[i] = (uint16_t)(at = next);
    }
    if (!chosen || packed->failed)
        return;
    if (!packed->out)
        routing_detail_choose(detail, expert, 0);
    packed->failed |= !busiest->expert;
    packed_count(packed, &detail->busiest.items);
    packed_count(packed, &detail->busiest.outside);
}

void snapshot_walk_detail(struct packed *packed, int version, struct routing_detail *detail)
{
    packed_count(packed, &detail->batches);
    packed_count(packed, &detail->batch_items);
    packed_count(packed, &detail->batch_experts);
    static const size_t TABLES[] = {0, 4, 5, 5}; /* by version, those before all */
    const size_t tables = version < 4 ? TABLES[version] : DETAIL_TABLES;
    const bool busiest = routing_detail_has_busiest(detail);
    if (version >= 8 && busiest)
        walk_busiest(packed, detail);
    for (size_t i = 0; i < tables; i++)
        walk_table(packed, detail, i, version >= 8 || !busiest || i != DETAIL_PAIRS);
    if (version < 4 && detail->truth)
        routing_detail_leave_out(detail, DETAIL_TABLES - 1);
    if (version >= 5)
        walk_qualities(packed, detail);
    else if (detail->truth)
        routing_detail_leave_out_quality(detail);
    if (version >= 3)
        walk_uses(packed, detail);
}

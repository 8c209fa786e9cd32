/* Plain tables, a few additions for each item. */
#include "proto/routing_detail.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables ---- */

enum table { RANKS, PAIRS, PREDICTED, TRUTH, DISTINCT, CORRECT, SEEN, TABLE_COUNT };

_Static_assert((int)SEEN == (int)DETAIL_TABLES && (int)PAIRS == (int)DETAIL_PAIRS,
               "all but the last add up");

/* In left_out, after those of the tables. */
enum { QUALITY_BIT = 1u << TABLE_COUNT };

/* A table's place in the struct, and how many numbers it has; 0: such a gate has none. */
static uint64_t **table_of(struct routing_detail *detail, enum table table, size_t *cells)
{
    const size_t experts = detail->experts, k = detail->top_k, side = detail->busiest.side;
    const struct {
        uint64_t **place;
        size_t cells;
    } tables[TABLE_COUNT] = {[RANKS] = {&detail->ranks, experts * k},
                             [PAIRS] = {&detail->pairs, side * side},
                             [PREDICTED] = {&detail->predicted, experts * detail->classes},
                             [TRUTH] = {&detail->truth, experts * detail->classes},
                             [DISTINCT] = {&detail->distinct, experts},
                             [CORRECT] = {&detail->correct, experts * detail->classes},
                             [SEEN] = {&detail->seen, experts}};
    *cells = tables[table].cells;
    return tables[table].place;
}

void routing_detail_leave_out(struct routing_detail *detail, size_t index)
{
    size_t cells;
    uint64_t **place = table_of(detail, (enum table)index, &cells);
    detail->left_out |= 1u << index;
    free(*place);
    *place = NULL;
}

/* Whether the table is there, now at the latest. Not having it is no failure: statistics do not end
 * a server that is short of memory. */
static bool has_table(struct routing_detail *detail, enum table table)
{
    size_t cells;
    uint64_t **place = table_of(detail, table, &cells);
    if (*place || (detail->left_out & 1u << table) ||
        (table == PAIRS && routing_detail_wants_busiest(detail)))
        return *place;
    if (cells > 0 && cells <= DETAIL_MAX_CELLS && cells <= detail->part)
        *place = calloc(cells, sizeof **place);
    if (!*place)
        detail->left_out |= 1u << table;
    return *place;
}

uint64_t *routing_detail_table(struct routing_detail *detail, size_t index, bool make,
                               size_t *cells, bool *left_out)
{
    const enum table table = (enum table)index;
    if (make)
        (void)has_table(detail, table);
    *left_out = detail->left_out & 1u << table;
    return *table_of(detail, table, cells);
}

void routing_detail_leave_out_quality(struct routing_detail *detail)
{
    detail->left_out |= QUALITY_BIT;
    free(detail->quality);
    detail->quality = NULL;
}

static bool has_quality(struct routing_detail *detail)
{
    const size_t cells = detail->experts * detail->classes;
    if (detail->quality || (detail->left_out & QUALITY_BIT))
        return detail->quality;
    const size_t numbers = cells * sizeof *detail->quality / sizeof(uint64_t);
    if (cells > 0 && cells <= DETAIL_MAX_QUALITIES && numbers <= detail->part)
        detail->quality = calloc(cells, sizeof *detail->quality);
    if (!detail->quality)
        detail->left_out |= QUALITY_BIT;
    return detail->quality;
}

struct routing_quality *routing_detail_quality(struct routing_detail *detail, bool make,
                                               bool *left_out)
{
    if (make)
        (void)has_quality(detail);
    *left_out = detail->left_out & QUALITY_BIT;
    return detail->quality;
}

void routing_detail_init(struct routing_detail *detail, size_t experts, size_t top_k,
                         size_t classes, size_t gates)
{
    *detail = (struct routing_detail){
        .experts = experts, .top_k = top_k, .classes = classes, .part = DETAIL_ALL_CELLS / gates};
    detail->busiest.side = routing_busiest_side(experts, top_k, detail->part);
}

void routing_detail_init_steps(struct routing_detail *detail, size_t experts, size_t top_k)
{
    routing_detail_init(detail, experts, top_k, 0, 1);
    detail->busiest.side = 0;
    routing_detail_leave_out(detail, RANKS);
    routing_detail_leave_out(detail, PAIRS);
}

void routing_detail_close(struct routing_detail *detail)
{
    free(detail->recent);
    detail->recent = NULL;
    for (int i = 0; i < TABLE_COUNT; i++)
        routing_detail_leave_out(detail, (size_t)i);
    routing_detail_leave_out_quality(detail);
    routing_busiest_forget(&detail->busiest);
}

void routing_detail_forget_busiest(struct routing_detail *detail)
{
    if (!routing_detail_has_busiest(detail))
        return;
    routing_busiest_forget(&detail->busiest);
    free(detail->pairs);
    detail->pairs = NULL;
}

void routing_detail_reset(struct routing_detail *detail)
{
    routing_detail_forget_busiest(detail);
    for (int i = 0; i < TABLE_COUNT; i++) {
        size_t cells;
        uint64_t **place = table_of(detail, (enum table)i, &cells);
        if (*place)
            memset(*place, 0, cells * sizeof **place);
    }
    if (detail->quality)
        memset(detail->quality, 0, detail->experts * detail->classes * sizeof *detail->quality);
    detail->batches = detail->batch_items = detail->batch_experts = detail->latest = 0;
    detail->recorded = 0;
    /* a snapshot may have had the labels without them */
    detail->left_out &= ~(1u << CORRECT | QUALITY_BIT);
}

/* ---- counting ---- */

static inline void count_pairs(struct routing_detail *detail, const int32_t *choice, size_t k)
{
    const size_t experts = detail->experts;
    uint64_t *const pairs = detail->pairs;
    if (detail->busiest.expert) {
        routing_busiest_count(&detail->busiest, detail->pairs, choice, k);
        return;
    }
    for (size_t a = 0; a < k; a++)
        for (size_t b = a + 1; b < k && choice[b] >= 0; b++) {
            const size_t i = (size_t)choice[a], j = (size_t)choice[b];
            pairs[i < j ? i * experts + j : j * experts + i]++;
        }
}

void routing_detail_choose(struct routing_detail *detail, const uint16_t *expert, uint64_t since)
{
    const size_t side = detail->busiest.side;
    uint64_t *pairs = calloc(side * side, sizeof *pairs);
    if (!pairs || routing_busiest_choose(&detail->busiest, detail->experts, expert, since) != 0) {
        free(pairs);
        return;
    }
    free(detail->pairs);
    detail->pairs = pairs;
}

bool routing_detail_has_uses(const struct routing_detail *detail)
{
    return detail->top_k < detail->experts && detail->experts <= UINT16_MAX;
}

/* Without memory there is none, now; the next batch tries again. */
static void need_recent(struct routing_detail *detail)
{
    if (!detail->recent && routing_detail_has_uses(detail)) {
        detail->recent = calloc(DETAIL_RECENT, sizeof *detail->recent);
        detail->room = DETAIL_RECENT;
    }
}

/* Returns how many experts an item has chosen. */
static inline size_t count_ranks(struct routing_detail *detail, const int32_t *choice, size_t k)
{
    uint64_t *const ranks = detail->ranks;
    uint16_t *const recent = detail->recent;
    uint64_t recorded = detail->recorded;
    size_t rank = 0;
    for (; rank < k && choice[rank] >= 0; rank++) {
        const size_t expert = (size_t)choice[rank];
        if (ranks)
            ranks[expert * k + rank]++;
        if (recent)
            recent[recorded++ % DETAIL_RECENT] = (uint16_t)expert;
    }
    detail->recorded = recorded;
    return rank;
}

/* Returns how many of an item's experts no item of the batch chose before. */
static inline size_t count_new(uint64_t *seen, const int32_t *choice, size_t chosen, uint64_t batch)
{
    size_t first = 0;
    for (size_t rank = 0; seen && rank < chosen; rank++) {
        const size_t expert = (size_t)choice[rank];
        first += seen[expert] != batch;
        seen[expert] = batch;
    }
    return first;
}

/* The batch now keeps `more` experts busy beyond those it did. */
static void count_busy(struct routing_detail *detail, size_t more)
{
    if (more == 0)
        return;
    detail->batch_experts += more;
    if (detail->distinct && detail->busy > 0)
        detail->distinct[detail->busy - 1]--;
    detail->busy += more;
    if (detail->distinct)
        detail->distinct[detail->busy - 1]++;
}

/* Once: a sequence has one item at a time, for which looking whether they are there would cost more
 * than counting. */
static void make_tables(struct routing_detail *detail)
{
    static const enum table OF_CHOICES[] = {RANKS, PAIRS, DISTINCT, SEEN};
    for (size_t i = 0; i < sizeof OF_CHOICES / sizeof *OF_CHOICES; i++)
        (void)has_table(detail, OF_CHOICES[i]);
    detail->made = true;
}

void routing_detail_count(struct routing_detail *detail, const int32_t *choice, size_t items,
                          uint64_t batch)
{
    size_t counted = 0, busy = 0;
    if (!detail->made)
        make_tables(detail);
    need_recent(detail);
    for (const int32_t *end = choice + items * detail->top_k; choice < end;
         choice += detail->top_k) {
        if (*choice < 0) /* padding */
            continue;
        counted++;
        busy += count_new(detail->seen, choice, count_ranks(detail, choice, detail->top_k), batch);
        if (detail->pairs)
            count_pairs(detail, choice, detail->top_k);
    }
    if (counted == 0)
        return;
    if (detail->latest != batch) {
        detail->batches++;
        detail->latest = batch;
        detail->busy = 0;
    }
    detail->batch_items += counted;
    count_busy(detail, busy);
}

static inline void count_alone(struct routing_detail *detail, const int32_t *choice, size_t pitch,
                               size_t items, size_t k)
{
    uint64_t *const distinct = detail->distinct;
    uint64_t experts = 0;
    for (size_t i = 0; i < items; i++, choice += pitch) {
        const size_t chosen = count_ranks(detail, choice, k);
        experts += chosen;
        if (detail->pairs)
            count_pairs(detail, choice, k);
        if (distinct)
            distinct[chosen - 1]++;
    }
    detail->batch_experts += detail->seen ? experts : 0;
}

/* Loops over two experts, as most gates choose, are none. */
void routing_detail_count_alone(struct routing_detail *detail, const int32_t *choice, size_t pitch,
                                size_t items)
{
    if (!detail->made)
        make_tables(detail);
    need_recent(detail);
    if (detail->top_k == 2)
        count_alone(detail, choice, pitch, items, 2);
    else
        count_alone(detail, choice, pitch, items, detail->top_k);
    detail->batches += items;
    detail->batch_items += items;
}

void routing_detail_predict(struct routing_detail *detail, size_t expert, size_t class)
{
    if (expert < detail->experts && class < detail->classes && has_table(detail, PREDICTED))
        detail->predicted[expert * detail->classes + class]++;
}

void routing_detail_label(struct routing_detail *detail, size_t expert, size_t class,
                          const struct routing_verdict *verdict)
{
    const size_t cell = expert * detail->classes + class;
    if (expert >= detail->experts || class >= detail->classes)
        return;
    if (has_table(detail, TRUTH))
        detail->truth[cell]++;
    if (has_table(detail, CORRECT))
        detail->correct[cell] += verdict->correct;
    if (has_quality(detail))
        routing_quality_count(&detail->quality[cell], verdict);
}

/* ---- arithmetic ---- */

void routing_detail_fill(struct routing_detail *detail)
{
    for (int i = 0; i < SEEN; i++)
        (void)has_table(detail, (enum table)i);
}

static void add_table(struct routing_detail *to, const struct routing_detail *from,
                      enum table table)
{
    size_t cells;
    const uint64_t *added = *table_of((struct routing_detail *)from, table, &cells);
    if (from->left_out & 1u << table)
        routing_detail_leave_out(to, table);
    if (!added || !has_table(to, table))
        return;
    uint64_t *sum = *table_of(to, table, &cells);
    for (size_t i = 0; i < cells; i++)
        sum[i] += added[i];
}

static void add_quality(struct routing_detail *to, const struct routing_detail *from)
{
    if (from->left_out & QUALITY_BIT)
        routing_detail_leave_out_quality(to);
    if (!from->quality || !has_quality(to))
        return;
    for (size_t i = 0; i < to->experts * to->classes; i++)
        routing_quality_add(&to->quality[i], &from->quality[i], 1);
}

static void add_recent(struct routing_detail *to, const struct routing_detail *from)
{
    const size_t kept = from->recorded < from->room ? from->recorded : from->room;
    uint16_t *both =
        from->recent && kept > 0 ? realloc(to->recent, (to->recorded + kept) * sizeof *both) : NULL;
    if (!both)
        return;
    to->recent = both;
    for (uint64_t i = from->recorded - kept; i < from->recorded; i++)
        to->recent[to->recorded++] = from->recent[i % from->room];
    to->room = to->recorded;
}

void routing_detail_keep_latest(struct routing_detail *sum, size_t uses)
{
    if (sum->recorded <= uses)
        return;
    memmove(sum->recent, sum->recent + (sum->recorded - uses), uses * sizeof *sum->recent);
    sum->recorded = sum->room = uses;
}

static void add_busiest(struct routing_detail *to, const struct routing_detail *from)
{
    if (from->busiest.expert && routing_detail_wants_busiest(to))
        routing_detail_choose(to, from->busiest.expert, from->busiest.since);
    if (!to->busiest.expert)
        return;
    to->busiest.items += from->busiest.items;
    to->busiest.outside += from->busiest.outside;
}

void routing_detail_add(struct routing_detail *to, const struct routing_detail *from)
{
    add_recent(to, from);
    add_busiest(to, from);
    for (int i = 0; i < SEEN; i++)
        add_table(to, from, (enum table)i);
    add_quality(to, from);
    to->batches += from->batches;
    to->batch_items += from->batch_items;
    to->batch_experts += from->batch_experts;
}

/* c log2 c, with its limit at 0. */
static double weighed(uint64_t count)
{
    return count > 0 ? (double)count * log2((double)count) : 0;
}

/* Of a table of counts: what all entropies of it are made of. */
struct weighed_table {
    uint64_t all;
    double by_row, each; /* sums of weighed() over rows' sums, over counts */
};

static struct weighed_table weigh(const uint64_t *counts, size_t rows, size_t columns)
{
    struct weighed_table table = {0};
    for (size_t row = 0; row < rows; row++) {
        uint64_t sum = 0;
        for (size_t column = 0; column < columns; column++) {
            sum += counts[row * columns + column];
            table.each += weighed(counts[row * columns + column]);
        }
        table.by_row += weighed(sum);
        table.all += sum;
    }
    return table;
}

double routing_mutual_information(const uint64_t *counts, size_t rows, size_t columns)
{
    const struct weighed_table table = weigh(counts, rows, columns);
    double by_column = 0;
    for (size_t column = 0; column < columns; column++) {
        uint64_t sum = 0;
        for (size_t row = 0; row < rows; row++)
            sum += counts[row * columns + column];
        by_column += weighed(sum);
    }
    return table.all > 0 ? fmax((weighed(table.all) + table.each - table.by_row - by_column) /
                                    (double)table.all,
                                0)
                         : 0;
}

double routing_dispatch_entropy(const uint64_t *counts, size_t rows, size_t columns)
{
    const struct weighed_table table = weigh(counts, rows, columns);
    return table.all > 0 ? fmax((table.by_row - table.each) / (double)table.all, 0) : 0;
}

bool routing_has_lifts(const struct routing_detail *detail)
{
    return detail->pairs && (detail->busiest.expert || detail->ranks);
}

/* Items that chose the expert of a row of pairs. */
static double chosen(const struct routing_detail *detail, size_t row)
{
    double sum = 0;
    if (detail->busiest.expert)
        return (double)detail->pairs[row * detail->busiest.side + row];
    for (size_t rank = 0; rank < detail->top_k; rank++)
        sum += (double)detail->ranks[row * detail->top_k + rank];
    return sum;
}

double routing_lift(const struct routing_detail *detail, size_t i, size_t j)
{
    if (!routing_has_lifts(detail))
        return 0;
    const uint64_t items = detail->busiest.expert ? detail->busiest.items : detail->batch_items;
    const double apart = chosen(detail, i) * chosen(detail, j);
    const double both = (double)detail->pairs[i * detail->busiest.side + j];
    return apart > 0 ? both * (double)items / apart : 0;
}

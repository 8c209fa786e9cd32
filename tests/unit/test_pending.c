/* Rows that wait to be counted: whoever looks sees them, and what is counted is what it would be
 * without waiting. */
#include <stdlib.h>

#include "server/statistics/snapshot.h"
#include "support.h"

enum { ROWS = 20, LOOPS = 2, MAX_TAGS = 2 };

static const uint64_t SECOND = 1000000000;

static const struct moed_gate_info gates[] = {
    {.name = "a", .experts = 4, .top_k = 2, .items_per_row = 1},
    {.name = "b", .experts = 20, .top_k = 3, .items_per_row = 1}};
static const struct moed_model_info info = {.gate_count = 2, .gates = gates, .sequence = true};
static const struct moed_model_info rows_only = {.gate_count = 2, .gates = gates};

/* What the gates decide for up to ROWS rows. */
static struct decided {
    int32_t expert[ROWS * 3], choice[ROWS * 3];
    float weight[ROWS * 3], probability[ROWS * 20], entropy[ROWS], margin[ROWS];
    uint64_t seconds[20];
    struct moed_routing routing;
} decided[2];

static const struct moed_routing *const routing[] = {&decided[0].routing, &decided[1].routing};

static float fraction(uint32_t *state)
{
    return (float)next_random(state) / 0x1p25f;
}

static void decide_gate(struct decided *gate, const struct moed_gate_info *of, size_t rows,
                        uint32_t *state)
{
    gate->routing = (struct moed_routing){
        rows,         of->experts,       of->top_k,     gate->expert, gate->choice,
        gate->weight, gate->probability, gate->entropy, gate->margin, gate->seconds};
    for (size_t row = 0; row < rows; row++) {
        const uint32_t any = next_random(state);
        for (size_t slot = 0; slot < of->top_k; slot++) {
            const size_t pair = row * of->top_k + slot;
            gate->choice[pair] = (int32_t)((any + slot) % of->experts);
            gate->expert[pair] = any % 11 == 3 && slot > 0 ? -1 : gate->choice[pair];
            gate->weight[pair] = any % 97 == 5 ? 1e30f : fraction(state) - 0.25f;
        }
        gate->entropy[row] = 2 * fraction(state);
        gate->margin[row] = fraction(state);
    }
    for (size_t i = 0; i < rows * of->experts; i++)
        gate->probability[i] = fraction(state);
    for (size_t e = 0; e < of->experts; e++)
        gate->seconds[e] = next_random(state);
}

static struct tally_batch decide(size_t rows, uint64_t now, uint32_t *state)
{
    for (size_t i = 0; i < 2; i++)
        decide_gate(&decided[i], &gates[i], rows, state);
    return (struct tally_batch){.rows = rows, .routing = routing, .at = now};
}

/* ---- the same steps three times ---- */

/* waits: as a server does. looked: somebody looks after every step, so that none waits for long.
 * batches: of a model whose rows never wait. */
struct all {
    struct model_stats *waits, *looked, *batches;
};

static struct all all_new(uint64_t now)
{
    return (struct all){model_stats_new(&info, 0, LOOPS, MAX_TAGS, now),
                        model_stats_new(&info, 0, LOOPS, MAX_TAGS, now),
                        model_stats_new(&rows_only, 0, LOOPS, MAX_TAGS, now)};
}

static void all_release(const struct all *all)
{
    model_stats_release(all->waits);
    model_stats_release(all->looked);
    model_stats_release(all->batches);
}

static void add_step(struct stats *shard, const struct tally_batch *batch,
                     const struct step_span *spans, size_t count)
{
    struct step_span copy[ROWS];
    size_t prompts = 0;
    for (size_t i = 0; i < count; i++) {
        copy[i] = spans[i];
        prompts += spans[i].generated - spans[i].first;
    }
    stats_add_step(shard, batch, &(struct step_counts){0.1, prompts, 0, copy, count});
}

static void add_batch(struct stats *shard, const struct tally_batch *batch,
                      const struct step_span *spans, size_t count)
{
    stats_add_batch(shard, batch->rows, 0.1);
    for (size_t i = 0; i < count; i++)
        (spans[i].intervened ? stats_count_intervened : stats_count)(shard, spans[i].tag, batch,
                                                                     spans[i].first, spans[i].end);
}

/* A step of up to three sequences; now and then one that is too large to wait. */
static void step(const struct all *all, size_t number, uint64_t now, uint32_t *state)
{
    struct step_span spans[3];
    const size_t loop = number % LOOPS, rows = next_random(state) % 40 == 0 ? ROWS : 3;
    const struct tally_batch batch = decide(rows, now, state);
    const size_t ends[] = {1, 2, rows};
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        const size_t first = i > 0 ? ends[i - 1] : 0;
        if (next_random(state) % 7 == 0) /* it is not counted */
            continue;
        spans[count++] = (struct step_span){.first = first,
                                            .generated = next_random(state) % 2 ? ends[i] : first,
                                            .end = ends[i],
                                            .tag = next_random(state) % 3,
                                            .intervened = next_random(state) % 9 == 0};
    }
    add_step(&all->waits->loop[loop], &batch, spans, count);
    add_step(&all->looked->loop[loop], &batch, spans, count);
    stats_lock(&all->looked->loop[loop]);
    stats_unlock(&all->looked->loop[loop]);
    add_batch(&all->batches->loop[loop], &batch, spans, count);
}

/* ---- that they say the same ---- */

static void expect_tallies(const struct tally *a, const struct tally *b)
{
    ck_assert(!a == !b);
    if (!a)
        return;
    ck_assert_uint_eq(a->rows, b->rows);
    for (size_t i = 0; i < 2; i++)
        ck_assert_mem_eq(a->gates[i], b->gates[i],
                         sizeof *a->gates[i] +
                             gates[i].experts * sizeof(struct moed_expert_counts));
}

static void expect_details(struct routing_detail *a, struct routing_detail *b)
{
    ck_assert_uint_eq(a->batches, b->batches);
    ck_assert_uint_eq(a->batch_items, b->batch_items);
    ck_assert_uint_eq(a->batch_experts, b->batch_experts);
    ck_assert_uint_eq(a->recorded, b->recorded);
    ck_assert_mem_eq(a->recent, b->recent, a->recorded * sizeof *a->recent);
    for (size_t i = 0; i < DETAIL_TABLES; i++) {
        size_t cells;
        bool left_out;
        const uint64_t *one = routing_detail_table(a, i, false, &cells, &left_out);
        const uint64_t *other = routing_detail_table(b, i, false, &cells, &left_out);
        ck_assert(!one == !other);
        if (one)
            ck_assert_mem_eq(one, other, cells * sizeof *one);
    }
    routing_detail_close(a);
    routing_detail_close(b);
}

static void expect_gate(const struct all *all, size_t gate)
{
    struct routing_detail a, b;
    const size_t experts = gates[gate].experts, k = gates[gate].top_k;
    routing_detail_init(&a, experts, k, 0, 2);
    routing_detail_init(&b, experts, k, 0, 2);
    model_stats_detail(all->waits, gate, &a);
    model_stats_detail(all->batches, gate, &b);
    expect_details(&a, &b);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        routing_detail_init_steps(&a, experts, k);
        routing_detail_init_steps(&b, experts, k);
        model_stats_phase(all->waits, (enum phase)phase, gate, &a);
        model_stats_phase(all->looked, (enum phase)phase, gate, &b);
        expect_details(&a, &b);
    }
}

static void expect_tag(const struct all *all, size_t tag)
{
    struct tally *waits = model_stats_totals(all->waits, tag);
    struct tally *batches = model_stats_totals(all->batches, tag);
    expect_tallies(waits, batches);
    tally_free(waits);
    tally_free(batches);
    ck_assert_uint_eq(model_stats_rows(all->waits, tag, true),
                      model_stats_rows(all->batches, tag, true));
}

START_TEST(rows_that_waited_count_as_others)
{
    uint32_t state = 31;
    const struct all all = all_new(SECOND);
    for (size_t i = 0; i < 2000; i++)
        step(&all, i, (2 + i) * SECOND, &state);
    for (size_t gate = 0; gate < 2; gate++)
        expect_gate(&all, gate);
    for (size_t tag = 0; tag < 3; tag++)
        expect_tag(&all, tag);
    struct stats a, b;
    stats_snapshot(all.waits, &info, &a);
    stats_snapshot(all.looked, &info, &b);
    ck_assert_uint_eq(a.sequences.tokens[PHASE_PROMPT], b.sequences.tokens[PHASE_PROMPT]);
    ck_assert_mem_eq(a.sequences.prompt_selected, b.sequences.prompt_selected,
                     a.sequences.experts * sizeof *a.sequences.prompt_selected);
    stats_close(&a);
    stats_close(&b);
    all_release(&all);
}
END_TEST

/* ---- whoever looks ---- */

/* A row that waits, in a shard where none does. */
static void serve_row(struct model_stats *stats, uint64_t now)
{
    uint32_t state = (uint32_t)now;
    const struct tally_batch batch = decide(1, now, &state);
    add_step(&stats->loop[0], &batch, &(struct step_span){.end = 1, .tag = TAG_NONE}, 1);
    ck_assert_uint_eq(stats->loop[0].pending.count, 1);
}

static uint64_t detail_items(struct model_stats *stats)
{
    struct routing_detail sum;
    routing_detail_init(&sum, gates[0].experts, gates[0].top_k, 0, 2);
    model_stats_detail(stats, 0, &sum);
    const uint64_t items = sum.batch_items;
    routing_detail_close(&sum);
    return items;
}

static uint64_t phase_items(struct model_stats *stats)
{
    struct routing_detail sum;
    routing_detail_init_steps(&sum, gates[0].experts, gates[0].top_k);
    model_stats_phase(stats, PHASE_GENERATED, 0, &sum);
    const uint64_t items = sum.batch_items;
    routing_detail_close(&sum);
    return items;
}

static uint64_t scraped_items(struct model_stats *stats)
{
    struct stats sum;
    stats_snapshot(stats, &info, &sum);
    const uint64_t items = sum.routing[TAG_NONE]->gates[1]->items;
    stats_close(&sum);
    return items;
}

static uint64_t rows_in(struct model_stats *stats, enum window window, uint64_t now)
{
    struct stats_window of;
    stats_window_init(&of, stats, window, STATS_ALL_TAGS, false, now);
    const uint64_t rows = of.tally->rows;
    stats_window_close(&of);
    return rows;
}

static uint64_t rows_read_back(struct model_stats *stats, uint64_t now)
{
    const struct snapshot_time time = {now, now};
    struct buffer body;
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    ck_assert_int_eq(snapshot_write(stats, &info, &time, &body, NULL), 0);
    struct model_stats *copy = model_stats_new(&info, 0, 1, MAX_TAGS, now);
    ck_assert_int_eq(snapshot_read(copy, &info, &time, body.data, body.length, NULL),
                     SNAPSHOT_READ);
    const uint64_t rows = model_stats_rows(copy, TAG_NONE, true);
    ck_assert_uint_eq(detail_items(copy), rows);
    model_stats_release(copy);
    buffer_close(&body);
    return rows;
}

START_TEST(whoever_looks_sees_all_rows)
{
    struct model_stats *stats = model_stats_new(&info, 0, 1, MAX_TAGS, SECOND);
    serve_row(stats, 2 * SECOND);
    ck_assert_uint_eq(detail_items(stats), 1);
    serve_row(stats, 3 * SECOND);
    ck_assert_uint_eq(phase_items(stats), 2);
    serve_row(stats, 4 * SECOND);
    ck_assert_uint_eq(scraped_items(stats), 3);
    serve_row(stats, 5 * SECOND);
    ck_assert_uint_eq(model_stats_rows(stats, TAG_NONE, false), 4);
    serve_row(stats, 6 * SECOND);
    ck_assert_uint_eq(rows_in(stats, WINDOW_1M, 7 * SECOND), 5);
    serve_row(stats, 8 * SECOND);
    ck_assert_uint_eq(rows_read_back(stats, 9 * SECOND), 6);
    model_stats_release(stats);
}
END_TEST

/* A row belongs to the step of a window in which it came, and to what was before a reset. */
START_TEST(windows_and_resets_do_not_move_rows)
{
    struct model_stats *stats = model_stats_new(&info, 0, 1, MAX_TAGS, SECOND);
    serve_row(stats, 2 * SECOND);
    model_stats_tick(stats, 6 * SECOND);
    serve_row(stats, 65 * SECOND);
    ck_assert_uint_eq(rows_in(stats, WINDOW_1M, 68 * SECOND), 1);
    serve_row(stats, 69 * SECOND);
    model_stats_reset(stats, 70 * SECOND);
    ck_assert_uint_eq(rows_in(stats, WINDOW_ALL, 71 * SECOND), 0);
    ck_assert_uint_eq(detail_items(stats), 0);
    ck_assert_uint_eq(phase_items(stats), 0);
    ck_assert_uint_eq(model_stats_rows(stats, TAG_NONE, false), 3);
    model_stats_release(stats);
}
END_TEST

/* Gates whose decisions would take more memory than is kept are counted at once. */
START_TEST(large_gates_never_wait)
{
    static const struct moed_gate_info many[] = {
        {.name = "a", .experts = 4096, .top_k = 2, .items_per_row = 1}};
    const struct moed_model_info large = {.gate_count = 1, .gates = many, .sequence = true};
    struct pending pending;
    pending_init(&pending, &large);
    ck_assert_uint_eq(pending.room, 0);
    pending_close(&pending);
    pending_init(&pending, &rows_only);
    ck_assert_uint_eq(pending.room, 0);
    pending_close(&pending);
}
END_TEST

TEST_MAIN("pending", rows_that_waited_count_as_others, whoever_looks_sees_all_rows,
          windows_and_resets_do_not_move_rows, large_gates_never_wait)

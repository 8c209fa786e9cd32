/* snapshot, model_stats: what could not be read when a model was loaded is joined with what was
 * counted since. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "server/statistics/snapshot.h"
#include "support.h"

static const uint64_t SECOND = 1000000000;

static const struct moed_gate_info gates[] = {{.name = "a", .experts = 2, .top_k = 1}};
static const struct moed_model_info info = {.gate_count = 1, .gates = gates, .sequence = true};

enum { LOOPS = 2, MAX_TAGS = 2 };

static void serve(struct model_stats *stats, const char *tag, int32_t expert, size_t rows,
                  uint64_t now)
{
    const struct moed_routing a = {.items = 1,
                                   .experts = 2,
                                   .top_k = 1,
                                   .expert = &expert,
                                   .choice = &expert,
                                   .weight = (const float[]){1}};
    const struct moed_routing *const routing[] = {&a};
    const struct tally_batch batch = {.rows = 1, .routing = routing, .at = now};
    const size_t index = tag ? tags_index(&stats->tags, tag) : TAG_NONE;
    for (size_t i = 0; i < rows; i++) {
        struct step_span span = {.end = 1, .tag = index};
        stats_add_step(&stats->loop[i % LOOPS], &batch, &(struct step_counts){0.1, 0, 0, &span, 1});
    }
}

static struct model_stats *stats_new(uint64_t now)
{
    return model_stats_new(&info, 0, LOOPS, MAX_TAGS, now);
}

/* An earlier process's, read back. */
static struct model_stats *read_earlier(struct model_stats *stats, uint64_t then, uint64_t now)
{
    struct error err = ERROR_INIT;
    struct buffer body;
    const struct snapshot_time written = {then, then}, read = {now, now};
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    ck_assert_int_eq(snapshot_write(stats, &info, &written, &body, &err), 0);
    struct model_stats *earlier = stats_new(now);
    ck_assert_int_eq(snapshot_read(earlier, &info, &read, body.data, body.length, &err),
                     SNAPSHOT_READ);
    buffer_close(&body);
    model_stats_release(stats);
    return earlier;
}

static uint64_t rows_in(struct model_stats *stats, enum window window, int tag, uint64_t now)
{
    struct stats_window of;
    stats_window_init(&of, stats, window, tag, true, now);
    const uint64_t rows = of.tally->rows;
    stats_window_close(&of);
    return rows;
}

static int tag_of(struct model_stats *stats, const char *name)
{
    return tags_find(&stats->tags, name);
}

static uint64_t steps_of(struct model_stats *stats)
{
    struct routing_detail sum;
    routing_detail_init_steps(&sum, 2, 1);
    model_stats_phase(stats, PHASE_GENERATED, 0, &sum);
    const uint64_t steps = sum.batches;
    ck_assert_uint_eq(sum.recorded, steps);
    routing_detail_close(&sum);
    return steps;
}

START_TEST(both_are_counted_once)
{
    const uint64_t start = 1000 * SECOND, now = start + 600 * SECOND;
    struct model_stats *then = stats_new(start), *stats = stats_new(now - 20 * SECOND);
    serve(then, NULL, 0, 5, start + SECOND);
    serve(then, "a", 0, 7, start + SECOND);
    model_stats_reset(then, start + 2 * SECOND);
    serve(then, "a", 0, 10, start + 3 * SECOND);
    serve(then, "b", 1, 20, start + 3 * SECOND);
    struct model_stats *earlier = read_earlier(then, start + 4 * SECOND, now);
    serve(stats, "c", 0, 100, now - 10 * SECOND);
    serve(stats, "b", 1, 200, now - 10 * SECOND);
    serve(stats, NULL, 1, 400, now - 10 * SECOND);
    stats->recorded.from = model_stats_totals(stats, TAG_NONE);
    model_stats_join(stats, earlier, now);
    model_stats_release(earlier);
    ck_assert_uint_eq(rows_in(stats, WINDOW_ALL, STATS_ALL_TAGS, now), 730);
    ck_assert_uint_eq(rows_in(stats, WINDOW_ALL, tag_of(stats, "b"), now), 220);
    ck_assert_uint_eq(rows_in(stats, WINDOW_ALL, tag_of(stats, "c"), now), 100);
    ck_assert_int_eq(tag_of(stats, "a"), -1); /* no place is left */
    ck_assert_uint_eq(rows_in(stats, WINDOW_ALL, tag_of(stats, "other"), now), 10);
    ck_assert_uint_eq(model_stats_rows(stats, TAG_NONE, false), 400); /* counters do not jump */
    ck_assert_uint_eq(model_stats_rows(stats, TAG_NONE, true), 405);
    ck_assert_uint_eq(stats->recorded.from->rows, 400 + 5 + 17 + 20); /* nor does a recording */
    ck_assert_uint_eq(steps_of(stats), 730);
    model_stats_release(stats);
}
END_TEST

/* What is read late came long before: no window of a minute has it. */
START_TEST(windows_begin_anew)
{
    const uint64_t start = 1000 * SECOND, now = start + 600 * SECOND;
    struct model_stats *then = stats_new(start), *stats = stats_new(now - 20 * SECOND);
    struct stats_window of;
    serve(then, NULL, 0, 5, start + SECOND);
    struct model_stats *earlier = read_earlier(then, start + 4 * SECOND, now);
    serve(stats, NULL, 1, 3, now - 10 * SECOND);
    model_stats_tick(stats, now);
    model_stats_join(stats, earlier, now);
    model_stats_release(earlier);
    ck_assert_uint_eq(rows_in(stats, WINDOW_1M, STATS_ALL_TAGS, now), 0);
    serve(stats, NULL, 1, 2, now + SECOND);
    model_stats_tick(stats, now + 6 * SECOND);
    for (int window = 0; window < WINDOW_COUNT; window++)
        ck_assert_uint_eq(rows_in(stats, (enum window)window, STATS_ALL_TAGS, now + 6 * SECOND), 2);
    stats_window_init(&of, stats, WINDOW_ALL, STATS_ALL_TAGS, true, now + 6 * SECOND);
    ck_assert_uint_eq(of.tally->rows, 10);
    ck_assert_double_eq_tol(of.seconds, 606, 5); /* right to a step */
    stats_window_close(&of);
    model_stats_release(stats);
}
END_TEST

/* ---- gates so large that only the busiest experts' pairs are counted ---- */

enum { MANY = 600 };

static const struct moed_gate_info large[] = {{.name = "a", .experts = MANY, .top_k = 2}};
static const struct moed_model_info of_large = {.gate_count = 1, .gates = large};

static void choose_two(struct stats *shard, int32_t expert)
{
    const int32_t choice[] = {expert, expert + 1};
    const struct moed_routing a = {.items = 1,
                                   .experts = MANY,
                                   .top_k = 2,
                                   .expert = choice,
                                   .choice = choice,
                                   .weight = (const float[]){0.5f, 0.5f}};
    const struct moed_routing *const routing[] = {&a};
    stats_count(shard, TAG_NONE, &(struct tally_batch){.rows = 1, .routing = routing}, 0, 1);
}

/* One more of the pair at `first` after those were `chosen` by what came before. */
static struct model_stats *large_stats(bool chosen, int32_t first, size_t shard)
{
    struct model_stats *stats = model_stats_new(&of_large, 0, 1, MAX_TAGS, SECOND);
    for (int row = 0; chosen && row < 8 * MANY; row++)
        choose_two(&stats->loop[shard], first + row % 100 * 2);
    model_stats_tick(stats, 100 * SECOND);
    choose_two(&stats->loop[shard], first);
    return stats;
}

static uint64_t pairs_of(struct model_stats *stats)
{
    struct routing_detail sum;
    uint64_t pairs = 0;
    routing_detail_init(&sum, MANY, 2, 0, 1);
    model_stats_detail(stats, 0, &sum);
    ck_assert_ptr_nonnull(sum.busiest.expert);
    const size_t side = sum.busiest.side;
    for (size_t i = 0; i < side * side; i++)
        pairs += i / side < i % side ? sum.pairs[i] : 0;
    routing_detail_close(&sum);
    return pairs;
}

START_TEST(pairs_of_other_experts_are_not_added)
{
    static const struct {
        bool then, now;     /* whether they had been chosen */
        int32_t first_then; /* the busiest */
        uint64_t pairs;     /* counted afterwards */
    } CASES[] = {
        {true, true, 0, 2}, {true, true, 300, 1}, {true, false, 300, 1}, {false, true, 0, 1}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct model_stats *earlier = large_stats(CASES[i].then, CASES[i].first_then, 1);
        struct model_stats *stats = large_stats(CASES[i].now, 0, 0);
        model_stats_join(stats, earlier, 200 * SECOND);
        ck_assert_uint_eq(pairs_of(stats), CASES[i].pairs);
        model_stats_release(earlier);
        model_stats_release(stats);
    }
}
END_TEST

/* A file of a later version is told from a damaged one, whatever follows. */
START_TEST(newer_versions_are_told_apart)
{
    static const struct {
        const char *head;
        enum snapshot_kind kind;
    } HEADS[] = {
        {"moed routing 9\n", SNAPSHOT_NEWER},    {"moed routing 10\n", SNAPSHOT_NEWER},
        {"moed routing 9999\n", SNAPSHOT_NEWER}, {"moed routing 0\n", SNAPSHOT_DAMAGED},
        {"moed routing 09\n", SNAPSHOT_DAMAGED}, {"moed routing 99999\n", SNAPSHOT_DAMAGED},
        {"moed routing 9 \n", SNAPSHOT_DAMAGED}, {"moed routing 7\n", SNAPSHOT_DAMAGED},
        {"noed routing 9\n", SNAPSHOT_DAMAGED}};
    const struct snapshot_time time = {SECOND, SECOND};
    for (size_t i = 0; i < sizeof HEADS / sizeof *HEADS; i++) {
        char bytes[40] = "";
        struct error err = ERROR_INIT;
        struct model_stats *stats = stats_new(SECOND);
        strcpy(bytes, HEADS[i].head);
        ck_assert_int_eq(snapshot_read(stats, &info, &time, bytes, sizeof bytes, &err),
                         HEADS[i].kind);
        ck_assert_int_ne(err.code, ERROR_NONE);
        model_stats_release(stats);
    }
}
END_TEST

TEST_MAIN("snapshot_late", both_are_counted_once, windows_begin_anew,
          pairs_of_other_experts_are_not_added, newer_versions_are_told_apart)

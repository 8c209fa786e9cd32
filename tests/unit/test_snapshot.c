/* snapshot: what is written is what is read, in another clock; whatever else is read harms nobody.
 */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "server/statistics/snapshot.h"
#include "support.h"

static const uint64_t SECOND = 1000000000;

static const struct moed_gate_info gates[] = {{.name = "a", .experts = 2, .top_k = 1},
                                              {.name = "b.c", .experts = 3, .top_k = 2}};
static const struct moed_model_info info = {.gate_count = 2, .gates = gates, .sequence = true};

enum { CLASSES = 2, LOOPS = 2, MAX_TAGS = 3 };

#define FLOATS(...)                                                                                \
    (const float[])                                                                                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static struct model_stats *stats_new(size_t max_tags, uint64_t now)
{
    return model_stats_new(&info, CLASSES, LOOPS, max_tags, now);
}

/* One row whose label is known. */
static void serve(struct model_stats *stats, size_t loop, const char *tag, int32_t expert,
                  uint64_t now)
{
    static const uint32_t one_item[] = {1, 1};
    const int32_t first[] = {expert}, second[] = {expert, 2}, label = expert;
    const struct moed_routing a = {.items = 1,
                                   .experts = 2,
                                   .top_k = 1,
                                   .expert = first,
                                   .choice = first,
                                   .weight = FLOATS(now % 7 == 0 ? -FLT_MAX : -0.25f),
                                   .probability = FLOATS(0.75f, 0.25f),
                                   .entropy = FLOATS(0.8f),
                                   .margin = FLOATS(0.5f),
                                   .seconds = (const uint64_t[]){1000, 2000}};
    const struct moed_routing b = {.items = 1,
                                   .experts = 3,
                                   .top_k = 2,
                                   .expert = second,
                                   .choice = second,
                                   .weight = FLOATS(0.5f, 0.25f)};
    const struct moed_routing *const routing[] = {&a, &b};
    const float scores[] = {0.25f, 0.75f};
    const struct tally_batch batch = {
        .rows = 1, .routing = routing, .at = now, .scores = scores, .classes = CLASSES};
    const struct answered_rows answered = {.rows = 1,
                                           .classes = CLASSES,
                                           .scores = scores,
                                           .items_per_row = one_item,
                                           .first = (const int32_t *const[]){first, first}};
    const size_t index = tag ? tags_index(&stats->tags, tag) : TAG_NONE;
    struct step_span span = {.generated = expert == 0, .end = 1, .tag = index};
    stats_add_step(&stats->loop[loop], &batch,
                   &(struct step_counts){0.1, expert == 0, 0, &span, 1});
    stats_judge(&stats->loop[loop], index, &answered, &label);
}

/* Twenty minutes of traffic; then, of some seconds. */
static struct model_stats *served(uint64_t start)
{
    static const char *const TAGS[] = {NULL, "a", "b", "c", "d"};
    struct model_stats *stats = stats_new(MAX_TAGS, start);
    for (uint64_t second = 1; second <= 1200; second++) {
        if (second % 5 == 0)
            model_stats_tick(stats, start + second * SECOND);
        serve(stats, second % LOOPS, TAGS[second % 5], second % 3 == 0, start + second * SECOND);
    }
    return stats;
}

static void write_snapshot(struct model_stats *stats, uint64_t now, uint64_t wall,
                           struct buffer *body)
{
    struct error err = ERROR_INIT;
    const struct snapshot_time time = {now, wall};
    buffer_init(body, SNAPSHOT_MAX_BYTES);
    ck_assert_msg(snapshot_write(stats, &info, &time, body, &err) == 0, "%s", err.text);
}

static struct model_stats *read_snapshot(const struct buffer *body, size_t max_tags, uint64_t now,
                                         uint64_t wall)
{
    struct error err = ERROR_INIT;
    const struct snapshot_time time = {now, wall};
    struct model_stats *stats = stats_new(max_tags, now);
    ck_assert_msg(snapshot_read(stats, &info, &time, body->data, body->length, &err) ==
                      SNAPSHOT_READ,
                  "%s", err.text);
    return stats;
}

static void check_same_counts(const struct tally *one, const struct tally *other)
{
    ck_assert_uint_eq(one->rows, other->rows);
    ck_assert_uint_eq(one->labelled, other->labelled);
    for (size_t i = 0; i < info.gate_count; i++) {
        const struct moed_gate_counts *a = one->gates[i], *b = other->gates[i];
        ck_assert_uint_eq(a->items, b->items);
        ck_assert_uint_eq(a->overflowed, b->overflowed);
        ck_assert(a->entropy == b->entropy && a->margin == b->margin);
        ck_assert_mem_eq(a->entropies, b->entropies, sizeof a->entropies);
        ck_assert_mem_eq(a->margins, b->margins, sizeof a->margins);
        for (size_t e = 0; e < a->experts; e++) {
            struct moed_expert_counts x = a->expert[e], y = b->expert[e];
            x.last = y.last = 0; /* of different clocks */
            ck_assert_mem_eq(&x, &y, sizeof x);
        }
        if (one->labelled > 0)
            ck_assert_mem_eq(one->quality[i], other->quality[i],
                             a->experts * sizeof **one->quality);
    }
}

static void check_window(struct model_stats *one, uint64_t now, struct model_stats *other,
                         uint64_t later, enum window window)
{
    for (int tag = STATS_ALL_TAGS; tag < (int)tags_end(&one->tags); tag++) {
        struct stats_window a, b;
        stats_window_init(&a, one, window, tag, true, now);
        stats_window_init(&b, other, window, tag, true, later);
        check_same_counts(a.tally, b.tally);
        check_same_counts(a.before, b.before);
        ck_assert_double_eq_tol(a.seconds, b.seconds, 1e-6);
        stats_window_close(&a);
        stats_window_close(&b);
    }
}

static void check_same_details(const struct routing_detail *one, const struct routing_detail *other)
{
    const size_t experts = one->experts;
    ck_assert_uint_eq(one->batches, other->batches);
    ck_assert_uint_eq(one->batch_items, other->batch_items);
    ck_assert_uint_eq(one->batch_experts, other->batch_experts);
    ck_assert_mem_eq(one->distinct, other->distinct, experts * sizeof *one->distinct);
    ck_assert_uint_eq(one->recorded, other->recorded);
    ck_assert_uint_gt(one->recorded, 0);
    ck_assert_mem_eq(one->recent, other->recent, one->recorded * sizeof *one->recent);
}

/* What a phase has counted, and the latest uses of experts. */
static void check_phases(struct model_stats *one, struct model_stats *other)
{
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        for (size_t gate = 0; gate < info.gate_count; gate++) {
            struct routing_detail a, b;
            routing_detail_init_steps(&a, gates[gate].experts, gates[gate].top_k);
            routing_detail_init_steps(&b, gates[gate].experts, gates[gate].top_k);
            model_stats_phase(one, (enum phase)phase, gate, &a);
            model_stats_phase(other, (enum phase)phase, gate, &b);
            ck_assert_uint_eq(a.batches, phase == PHASE_PROMPT ? 800 : 400);
            check_same_details(&a, &b);
            routing_detail_close(&a);
            routing_detail_close(&b);
        }
}

/* The new process's clock stands at steps of all windows, as the old one's does, so that windows
 * are the same to the row. */
START_TEST(what_is_written_is_read)
{
    const uint64_t start = 3600000 * SECOND, end = start + 1200 * SECOND;
    const uint64_t later = 7200000 * SECOND + 1200 * SECOND;
    struct model_stats *one = served(start);
    struct buffer body;
    write_snapshot(one, end, 50 * SECOND, &body);
    struct model_stats *other = read_snapshot(&body, MAX_TAGS, later, 50 * SECOND);
    for (int window = 0; window <= WINDOW_ALL; window++)
        check_window(one, end, other, later, (enum window)window);
    for (size_t gate = 0; gate < info.gate_count; gate++) {
        struct routing_detail a, b;
        routing_detail_init(&a, gates[gate].experts, gates[gate].top_k, CLASSES, 2);
        routing_detail_init(&b, gates[gate].experts, gates[gate].top_k, CLASSES, 2);
        model_stats_detail(one, gate, &a);
        model_stats_detail(other, gate, &b);
        ck_assert_mem_eq(a.ranks, b.ranks, gates[gate].experts * gates[gate].top_k * 8);
        ck_assert_mem_eq(a.truth, b.truth, gates[gate].experts * CLASSES * 8);
        ck_assert_mem_eq(a.quality, b.quality, gates[gate].experts * CLASSES * sizeof *a.quality);
        ck_assert_uint_eq(a.batches, 1200);
        check_same_details(&a, &b);
        routing_detail_close(&a);
        routing_detail_close(&b);
    }
    check_phases(one, other);
    /* Counters of /metrics are the new process's own. */
    ck_assert_uint_eq(model_stats_rows(other, TAG_FIRST, false), 0);
    ck_assert_uint_eq(model_stats_rows(other, TAG_FIRST, true), 240);
    buffer_close(&body);
    model_stats_release(one);
    model_stats_release(other);
}
END_TEST

static uint64_t rows_in(struct model_stats *stats, enum window window, uint64_t now)
{
    struct stats_window of;
    stats_window_init(&of, stats, window, STATS_ALL_TAGS, true, now);
    const uint64_t rows = of.tally->rows;
    stats_window_close(&of);
    return rows;
}

/* Ten minutes between the end of one process and the start of the next, of which a machine that was
 * started anew knows nothing: its clock is behind. Times of marks are right to a step. */
START_TEST(what_happened_before_was_before)
{
    const uint64_t start = 1000003 * SECOND, now = 500007 * SECOND;
    struct model_stats *one = served(start);
    struct stats_window of;
    struct buffer body;
    write_snapshot(one, start + 1203 * SECOND, 5000 * SECOND, &body);
    struct model_stats *other = read_snapshot(&body, MAX_TAGS, now, 5600 * SECOND);
    ck_assert_uint_eq(rows_in(other, WINDOW_ALL, now), 1200);
    ck_assert_uint_eq(rows_in(other, WINDOW_1H, now), 1200);
    ck_assert_uint_eq(rows_in(other, WINDOW_5M, now), 0);
    ck_assert_uint_eq(rows_in(other, WINDOW_1M, now), 0);
    model_stats_tick(other, now + SECOND); /* the rows after the last mark do not become new ones */
    serve(other, 0, "a", 0, now + 2 * SECOND);
    ck_assert_uint_eq(rows_in(other, WINDOW_1M, now + 3 * SECOND), 1);
    ck_assert_uint_eq(rows_in(other, WINDOW_5M, now + 3 * SECOND), 1);
    ck_assert_uint_eq(rows_in(other, WINDOW_ALL, now + 3 * SECOND), 1201);
    stats_window_init(&of, other, WINDOW_ALL, STATS_ALL_TAGS, true, now + 3 * SECOND);
    ck_assert_double_eq_tol(of.seconds, 1203 + 600 + 3, 1e-6);
    const double idle = (double)(of.now - of.tally->gates[0]->expert[1].last) / 1e9;
    ck_assert_double_eq_tol(idle, 3 + 600 + 3, 1e-6);
    stats_window_close(&of);
    buffer_close(&body);
    model_stats_release(one);
    model_stats_release(other);
}
END_TEST

START_TEST(tags_without_a_place_are_other)
{
    struct model_stats *one = served(SECOND);
    struct buffer body;
    struct stats_window of;
    write_snapshot(one, 1201 * SECOND, SECOND, &body);
    struct model_stats *other = read_snapshot(&body, 1, 9999 * SECOND, SECOND);
    ck_assert_str_eq(tags_name(&other->tags, TAG_FIRST), "a");
    ck_assert_uint_eq(model_stats_rows(other, TAG_FIRST, true), 240);
    ck_assert_uint_eq(model_stats_rows(other, TAG_FIRST + 1, true), 720);
    stats_window_init(&of, other, WINDOW_ALL, TAG_FIRST + 1, true, 9999 * SECOND);
    ck_assert_uint_eq(of.tally->rows, 720);
    stats_window_close(&of);
    ck_assert_uint_eq(rows_in(other, WINDOW_ALL, 9999 * SECOND), 1200);
    buffer_close(&body);
    model_stats_release(one);
    model_stats_release(other);
}
END_TEST

/* Resets are kept, too. */
START_TEST(a_reset_outlives_the_process)
{
    struct model_stats *one = served(SECOND);
    struct buffer body;
    model_stats_reset(one, 1300 * SECOND);
    serve(one, 0, NULL, 0, 1301 * SECOND);
    write_snapshot(one, 1302 * SECOND, SECOND, &body);
    struct model_stats *other = read_snapshot(&body, MAX_TAGS, 9999 * SECOND, SECOND);
    ck_assert_uint_eq(rows_in(other, WINDOW_ALL, 9999 * SECOND), 1);
    buffer_close(&body);
    model_stats_release(one);
    model_stats_release(other);
}
END_TEST

static enum snapshot_kind kind_of(const struct moed_model_info *of, size_t classes,
                                  const void *bytes, size_t length)
{
    struct error err = ERROR_INIT;
    const struct snapshot_time time = {9999 * SECOND, SECOND};
    struct model_stats *stats = model_stats_new(of, classes, LOOPS, MAX_TAGS, time.now);
    const enum snapshot_kind kind = snapshot_read(stats, of, &time, bytes, length, &err);
    ck_assert_int_eq(kind == SNAPSHOT_READ, err.code == ERROR_NONE);
    model_stats_release(stats);
    return kind;
}

START_TEST(other_gates_are_told_apart)
{
    struct model_stats *one = served(SECOND);
    struct buffer body;
    write_snapshot(one, 1201 * SECOND, SECOND, &body);
    struct moed_gate_info changed[] = {gates[0], gates[1]};
    struct moed_model_info other = {.gate_count = 2, .gates = changed, .sequence = true};
    ck_assert_int_eq(kind_of(&other, CLASSES, body.data, body.length), SNAPSHOT_READ);
    ck_assert_int_eq(kind_of(&other, CLASSES + 1, body.data, body.length), SNAPSHOT_OTHER);
    changed[1].name = "b.d";
    ck_assert_int_eq(kind_of(&other, CLASSES, body.data, body.length), SNAPSHOT_OTHER);
    changed[1] = gates[1];
    changed[0].experts = 3;
    ck_assert_int_eq(kind_of(&other, CLASSES, body.data, body.length), SNAPSHOT_OTHER);
    changed[0] = gates[0];
    other.sequence = false;
    ck_assert_int_eq(kind_of(&other, CLASSES, body.data, body.length), SNAPSHOT_OTHER);
    buffer_close(&body);
    model_stats_release(one);
}
END_TEST

/* Every byte counts, and so does every missing one; with a right checksum, too. */
START_TEST(damage_is_noticed)
{
    struct model_stats *one = stats_new(MAX_TAGS, SECOND);
    struct buffer body;
    serve(one, 0, "a", 1, 2 * SECOND);
    write_snapshot(one, 3 * SECOND, SECOND, &body);
    unsigned char *bytes = (unsigned char *)body.data;
    for (size_t i = 0; i < body.length; i++) {
        bytes[i] ^= 0x40;
        ck_assert_int_eq(kind_of(&info, CLASSES, bytes, body.length), SNAPSHOT_DAMAGED);
        bytes[i] ^= 0x40;
        ck_assert_int_eq(kind_of(&info, CLASSES, bytes, i), SNAPSHOT_DAMAGED);
    }
    for (size_t length = 0; length < body.length; length++) {
        unsigned char *cut = xmalloc(length + 1);
        memcpy(cut, bytes, length);
        snapshot_seal(cut, length);
        ck_assert_int_ne(kind_of(&info, CLASSES, cut, length), SNAPSHOT_READ);
        free(cut);
    }
    ck_assert_int_eq(kind_of(&info, CLASSES, bytes, body.length), SNAPSHOT_READ);
    buffer_close(&body);
    model_stats_release(one);
}
END_TEST

static uint64_t uses_of(struct model_stats *stats)
{
    struct routing_detail sum;
    routing_detail_init_steps(&sum, gates[0].experts, gates[0].top_k);
    model_stats_phase(stats, PHASE_GENERATED, 0, &sum);
    const uint64_t uses = sum.recorded;
    routing_detail_close(&sum);
    return uses;
}

/* As many as the loops have room for, the latest, however often a process is started anew. */
START_TEST(uses_of_many_processes_are_bounded)
{
    struct buffer body;
    struct model_stats *stats = stats_new(MAX_TAGS, SECOND);
    for (int process = 0; process < 4; process++) {
        for (size_t row = 0; row < DETAIL_RECENT; row++)
            serve(stats, 0, NULL, 1, 2 * SECOND);
        const size_t most = (size_t)(process + 1) * DETAIL_RECENT;
        ck_assert_uint_eq(uses_of(stats),
                          most < model_stats_uses(stats) ? most : model_stats_uses(stats));
        write_snapshot(stats, 3 * SECOND, SECOND, &body);
        model_stats_release(stats);
        stats = read_snapshot(&body, MAX_TAGS, 3 * SECOND, SECOND);
        buffer_close(&body);
    }
    model_stats_release(stats);
}
END_TEST

/* The gates of earlier versions' files. */
static const struct moed_gate_info then[] = {{.name = "a", .experts = 2, .top_k = 1},
                                             {.name = "b", .experts = 3, .top_k = 2}};
static const struct moed_model_info of_then = {.gate_count = 2, .gates = then, .sequence = true};

/* Files that earlier versions of the program have written; the gates were of rows. */
START_TEST(earlier_versions_are_read)
{
    static const char *const PATHS[] = {MOED_TEST_DATA "/fuzz/corpus/snapshot/tags",
                                        MOED_TEST_DATA "/fuzz/corpus/snapshot/version-2",
                                        MOED_TEST_DATA "/fuzz/corpus/snapshot/version-3",
                                        MOED_TEST_DATA "/fuzz/corpus/snapshot/version-4",
                                        MOED_TEST_DATA "/fuzz/corpus/snapshot/version-5",
                                        MOED_TEST_DATA "/fuzz/corpus/snapshot/version-6",
                                        MOED_TEST_DATA "/fuzz/corpus/snapshot/version-7"};
    char bytes[8192];
    for (size_t i = 0; i < sizeof PATHS / sizeof *PATHS; i++) {
        const size_t length = load_file(PATHS[i], bytes, sizeof bytes);
        ck_assert_int_eq(kind_of(&of_then, CLASSES, bytes, length), SNAPSHOT_READ);
    }
}
END_TEST

struct known {
    uint64_t labels;
    bool right, quality; /* of all of them */
};

static struct known known_of(struct model_stats *stats)
{
    struct known known = {0};
    struct routing_detail sum;
    routing_detail_init(&sum, 2, 1, CLASSES, 2);
    model_stats_detail(stats, 0, &sum);
    routing_detail_fill(&sum);
    for (size_t i = 0; sum.truth && i < 2 * CLASSES; i++)
        known.labels += sum.truth[i];
    known.right = sum.correct;
    known.quality = sum.quality;
    routing_detail_close(&sum);
    return known;
}

static void check_labels(const char *path, uint64_t labels, bool right)
{
    char bytes[8192];
    struct error err = ERROR_INIT;
    const struct snapshot_time time = {100 * SECOND, SECOND};
    const size_t length = load_file(path, bytes, sizeof bytes);
    struct model_stats *stats = model_stats_new(&of_then, CLASSES, LOOPS, MAX_TAGS, SECOND);
    ck_assert_int_eq(snapshot_read(stats, &of_then, &time, bytes, length, &err), SNAPSHOT_READ);
    serve(stats, 0, NULL, 1, 101 * SECOND);
    struct known known = known_of(stats);
    ck_assert(known.right == right && !known.quality);
    ck_assert_uint_eq(known.labels, labels + 1);
    model_stats_reset(stats, 102 * SECOND);
    serve(stats, 0, NULL, 1, 103 * SECOND);
    known = known_of(stats);
    ck_assert(known.right && known.quality);
    ck_assert_uint_eq(known.labels, 1);
    model_stats_release(stats);
}

/* Labels of whose answers nothing is known: no part of them is told as right, until a reset. */
START_TEST(answers_are_judged_for_all_labels)
{
    check_labels(MOED_TEST_DATA "/fuzz/corpus/snapshot/version-3", 12, false);
    check_labels(MOED_TEST_DATA "/fuzz/corpus/snapshot/version-4", 12, true);
}
END_TEST

/* What does not fit goes without the latest uses, then without windows. */
START_TEST(what_there_is_no_room_for_is_left_out)
{
    struct model_stats *one = served(SECOND);
    struct error err = ERROR_INIT;
    const struct snapshot_time time = {1201 * SECOND, SECOND};
    struct buffer body;
    buffer_init(&body, 130000);
    ck_assert_msg(snapshot_write(one, &info, &time, &body, &err) == 0, "%s", err.text);
    struct model_stats *windows = read_snapshot(&body, MAX_TAGS, 9999 * SECOND, SECOND);
    ck_assert_uint_ge(rows_in(windows, WINDOW_1M, 9999 * SECOND), 60);
    ck_assert_uint_eq(uses_of(windows), 0);
    model_stats_release(windows);
    buffer_close(&body);
    buffer_init(&body, 8000);
    ck_assert_msg(snapshot_write(one, &info, &time, &body, &err) == 0, "%s", err.text);
    struct model_stats *other = read_snapshot(&body, MAX_TAGS, 9999 * SECOND, 11 * SECOND);
    ck_assert_uint_eq(rows_in(other, WINDOW_ALL, 9999 * SECOND), 1200);
    ck_assert_uint_eq(rows_in(other, WINDOW_1M, 9999 * SECOND), 0);
    buffer_close(&body);
    buffer_init(&body, 100);
    ck_assert_int_eq(snapshot_write(one, &info, &time, &body, &err), -1);
    ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
    buffer_close(&body);
    model_stats_release(one);
    model_stats_release(other);
}
END_TEST

TEST_MAIN("snapshot", what_is_written_is_read, what_happened_before_was_before,
          tags_without_a_place_are_other, a_reset_outlives_the_process, other_gates_are_told_apart,
          damage_is_noticed, uses_of_many_processes_are_bounded, earlier_versions_are_read,
          answers_are_judged_for_all_labels, what_there_is_no_room_for_is_left_out)

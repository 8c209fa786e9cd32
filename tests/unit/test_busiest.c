/* The busiest experts of a gate of many: chosen once for all loops, kept by snapshots, forgotten by
 * a reset. */
#include <stdlib.h>

#include "server/statistics/snapshot.h"
#include "support.h"

static const uint64_t SECOND = 1000000000;

enum { EXPERTS = 300, LOOPS = 2, ENOUGH = BUSIEST_ENOUGH * EXPERTS };

static const struct moed_gate_info gates[] = {{.name = "a", .experts = EXPERTS, .top_k = 2},
                                              {.name = "b", .experts = 3, .top_k = 2}};
static const struct moed_model_info info = {.gate_count = 2, .gates = gates};

/* One row. */
static void serve(struct model_stats *stats, size_t loop, int32_t one, int32_t other, uint64_t now)
{
    const int32_t first[] = {one, other}, second[] = {2, 0};
    const float weight[] = {0.5f, 0.5f};
    const struct moed_routing a = {.items = 1,
                                   .experts = EXPERTS,
                                   .top_k = 2,
                                   .expert = first,
                                   .choice = first,
                                   .weight = weight};
    const struct moed_routing b = {
        .items = 1, .experts = 3, .top_k = 2, .expert = second, .choice = second, .weight = weight};
    const struct moed_routing *const routing[] = {&a, &b};
    const struct tally_batch batch = {.rows = 1, .routing = routing, .at = now};
    stats_add_batch(&stats->loop[loop], 1, 0.1);
    stats_count(&stats->loop[loop], TAG_NONE, &batch, 0, 1);
}

/* Rows that make all experts from `first` on the busiest. */
static void serve_many(struct model_stats *stats, int32_t first, uint64_t now)
{
    for (int i = 0; i < ENOUGH; i++)
        serve(stats, (size_t)i % LOOPS, first + i % BUSIEST_MAX, first + (i + 1) % BUSIEST_MAX,
              now);
}

/* Of as many rows from expert 0 on, where the busiest begin with 44. */
static uint64_t outside_of_many(void)
{
    uint64_t outside = 0;
    for (int i = 0; i < ENOUGH; i++)
        outside += i % BUSIEST_MAX < 44 || (i + 1) % BUSIEST_MAX < 44;
    return outside;
}

static struct routing_detail detail_of(struct model_stats *stats)
{
    struct routing_detail sum;
    routing_detail_init(&sum, EXPERTS, 2, 0, info.gate_count);
    model_stats_detail(stats, 0, &sum);
    return sum;
}

static void check_busiest(struct model_stats *stats, size_t first, uint64_t items, uint64_t outside,
                          uint64_t both)
{
    struct routing_detail sum = detail_of(stats);
    ck_assert_ptr_nonnull(sum.pairs);
    ck_assert_uint_eq(routing_detail_paired(&sum, 0), first);
    ck_assert_uint_eq(routing_detail_paired(&sum, BUSIEST_MAX - 1), first + BUSIEST_MAX - 1);
    ck_assert_uint_eq(sum.busiest.items, items);
    ck_assert_uint_eq(sum.busiest.outside, outside);
    ck_assert_uint_eq(sum.pairs[0 * BUSIEST_MAX + 2], both);
    routing_detail_close(&sum);
}

static void check_none(struct model_stats *stats)
{
    struct routing_detail sum = detail_of(stats);
    ck_assert(!sum.pairs && routing_detail_wants_busiest(&sum));
    routing_detail_close(&sum);
}

/* In both loops, one row with a pair of them and one without. */
static void serve_four(struct model_stats *stats, int32_t first, int32_t outside, uint64_t now)
{
    for (size_t loop = 0; loop < LOOPS; loop++) {
        serve(stats, loop, first + 2, first, now);
        serve(stats, loop, first + 2, outside, now);
    }
}

START_TEST(they_are_chosen_once_there_is_enough)
{
    struct model_stats *stats = model_stats_new(&info, 0, LOOPS, 1, SECOND);
    serve(stats, 0, 1, 2, 2 * SECOND);
    model_stats_tick(stats, 10 * SECOND);
    check_none(stats);
    serve_many(stats, 44, 11 * SECOND);
    check_none(stats);
    model_stats_tick(stats, 20 * SECOND);
    check_busiest(stats, 44, 0, 0, 0);
    serve_four(stats, 44, 1, 21 * SECOND);
    check_busiest(stats, 44, 4, 2, 2);
    serve_many(stats, 0, 22 * SECOND);
    serve_many(stats, 0, 22 * SECOND); /* others are the busiest now: what is known stays exact */
    model_stats_tick(stats, 30 * SECOND);
    check_busiest(stats, 44, 4 + 2 * ENOUGH, 2 + 2 * outside_of_many(), 2);
    model_stats_release(stats);
}
END_TEST

START_TEST(a_reset_forgets_them)
{
    struct model_stats *stats = model_stats_new(&info, 0, LOOPS, 1, SECOND);
    serve_many(stats, 44, 2 * SECOND);
    model_stats_tick(stats, 10 * SECOND);
    model_stats_reset(stats, 11 * SECOND);
    model_stats_tick(stats, 20 * SECOND);
    check_none(stats); /* what came before the reset does not choose */
    serve_many(stats, 3, 21 * SECOND);
    model_stats_tick(stats, 30 * SECOND);
    check_busiest(stats, 3, 0, 0, 0);
    model_stats_release(stats);
}
END_TEST

static struct model_stats *restarted(struct model_stats *stats, uint64_t now)
{
    struct error err = ERROR_INIT;
    struct buffer body;
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    ck_assert_int_eq(
        snapshot_write(stats, &info, &(struct snapshot_time){now, SECOND}, &body, &err), 0);
    struct model_stats *other = model_stats_new(&info, 0, LOOPS, 1, 9000 * SECOND);
    const struct snapshot_time time = {9000 * SECOND, SECOND};
    ck_assert_msg(snapshot_read(other, &info, &time, body.data, body.length, &err) == SNAPSHOT_READ,
                  "%s", err.text);
    buffer_close(&body);
    model_stats_release(stats);
    return other;
}

START_TEST(snapshots_keep_them)
{
    struct model_stats *stats = model_stats_new(&info, 0, LOOPS, 1, SECOND);
    stats = restarted(stats, 2 * SECOND);
    check_none(stats);
    serve_many(stats, 44, 9001 * SECOND);
    stats = restarted(stats, 9002 * SECOND);
    check_none(stats);
    model_stats_tick(stats, 9010 * SECOND); /* of what the process before has counted */
    check_busiest(stats, 44, 0, 0, 0);
    serve_four(stats, 44, 1, 9011 * SECOND);
    stats = restarted(stats, 9012 * SECOND);
    check_busiest(stats, 44, 4, 2, 2);
    struct routing_detail sum = detail_of(stats);
    ck_assert_uint_eq(sum.busiest.since, 8998 * SECOND);
    routing_detail_close(&sum);
    serve_many(stats, 0, 9013 * SECOND);
    model_stats_tick(stats, 9020 * SECOND);
    stats = restarted(stats, 9021 * SECOND);
    serve_four(stats, 44, 1, 9022 * SECOND);
    check_busiest(stats, 44, 8 + ENOUGH, 4 + outside_of_many(), 4);
    model_stats_release(stats);
}
END_TEST

/* Which had left out such pairs: of 20 rows. */
START_TEST(snapshots_of_version_7_go_on)
{
    static const struct moed_model_info of_one = {.gate_count = 1, .gates = gates};
    const struct snapshot_time time = {9000 * SECOND, SECOND};
    struct error err = ERROR_INIT;
    static char bytes[16384];
    const size_t length =
        load_file(MOED_TEST_DATA "/fuzz/corpus/snapshot/version-7-many", bytes, sizeof bytes);
    struct model_stats *stats = model_stats_new(&of_one, 2, LOOPS, 1, 9000 * SECOND);
    ck_assert_msg(snapshot_read(stats, &of_one, &time, bytes, length, &err) == SNAPSHOT_READ, "%s",
                  err.text);
    ck_assert_uint_eq(model_stats_rows(stats, TAG_NONE, true), 20);
    struct routing_detail sum;
    routing_detail_init(&sum, EXPERTS, 2, 2, 1);
    model_stats_detail(stats, 0, &sum);
    ck_assert(routing_detail_wants_busiest(&sum) && sum.left_out == 0);
    routing_detail_close(&sum);
    model_stats_release(stats);
}
END_TEST

TEST_MAIN("busiest experts", they_are_chosen_once_there_is_enough, a_reset_forgets_them,
          snapshots_keep_them, snapshots_of_version_7_go_on)

/* snapshot_earlier: what a file of an earlier version says in what there is now. */
#include <string.h>

#include "server/statistics/snapshot.h"
#include "support.h"

static const uint64_t SECOND = 1000000000;

static const struct moed_gate_info gates[] = {{.name = "a", .experts = 2, .top_k = 1},
                                              {.name = "b", .experts = 3, .top_k = 2}};
static const struct moed_model_info info = {.gate_count = 2, .gates = gates, .sequence = true};

/* All weights of gate a were -1/4, of gate b 1/2 and 1/4. There were no parts before version 7;
 * each row has 1 of them to give. */
static void check_parts(struct model_stats *stats, enum window window)
{
    struct stats_window of;
    stats_window_init(&of, stats, window, STATS_ALL_TAGS, true, 101 * SECOND);
    const struct moed_gate_counts *a = of.tally->gates[0], *b = of.tally->gates[1];
    ck_assert_uint_ge(a->items, 8);
    for (size_t e = 0; e < 2; e++) {
        const double rows = -4 * moed_sum_value(a->expert[e].weight);
        ck_assert_double_gt(rows, 0);
        ck_assert_double_eq_tol(moed_sum_value(a->expert[e].part), rows, 1e-9);
    }
    ck_assert_double_eq_tol(moed_sum_value(b->expert[2].part), (double)b->items / 3, 1e-8);
    stats_window_close(&of);
}

START_TEST(weights_become_parts)
{
    char bytes[8192];
    struct error err = ERROR_INIT;
    const struct snapshot_time time = {100 * SECOND, SECOND};
    const size_t length =
        load_file(MOED_TEST_DATA "/fuzz/corpus/snapshot/version-6", bytes, sizeof bytes);
    struct model_stats *stats = model_stats_new(&info, 2, 2, 3, SECOND);
    ck_assert_int_eq(snapshot_read(stats, &info, &time, bytes, length, &err), SNAPSHOT_READ);
    check_parts(stats, WINDOW_ALL);
    check_parts(stats, WINDOW_1M);
    model_stats_release(stats);
}
END_TEST

TEST_MAIN("snapshot earlier", weights_become_parts)

/* What a lane knows of its own speed. */
#include "server/compute/pace.h"
#include "support.h"

static const uint64_t MS = 1000 * 1000;
enum { MOST = 64, ROW_NS = 1000 * 1000 };

static struct pace pace;

static void begin(void)
{
    pace_init(&pace, MOST, ROW_NS);
}

static void end(void)
{
}

START_TEST(nothing_is_known_of_the_queue_at_first)
{
    ck_assert(pace_wait_ns(&pace, 1000) == 0);
    ck_assert_uint_eq(pace_retry_after(&pace, 1000), 1);
    pace_left(&pace, 10, 5 * MS, true); /* nobody waited before it */
    ck_assert(pace_wait_ns(&pace, 1000) == 0);
}
END_TEST

START_TEST(the_time_in_which_rows_leave)
{
    pace_left(&pace, 10, 1000 * MS, true);
    for (uint64_t i = 1; i <= 10; i++)
        pace_left(&pace, 10, (1000 + 100 * i) * MS, true); /* 100 rows a second */
    ck_assert_double_eq_tol(pace_wait_ns(&pace, 50), 0.5e9, 1);
    ck_assert_uint_eq(pace_retry_after(&pace, 50), 1);
    ck_assert_uint_eq(pace_retry_after(&pace, 101), 2); /* rounded up */
    ck_assert_uint_eq(pace_retry_after(&pace, 1000000), 30);
}
END_TEST

START_TEST(idle_time_is_not_counted)
{
    pace_left(&pace, 10, 1000 * MS, true);
    pace_left(&pace, 10, 1100 * MS, false); /* nobody waits */
    pace_left(&pace, 10, 60000 * MS, true);
    pace_left(&pace, 10, 60100 * MS, true);
    ck_assert_double_eq_tol(pace_wait_ns(&pace, 100), 1e9, 1);
}
END_TEST

START_TEST(a_slice_is_as_many_rows_as_it_has_time_for)
{
    ck_assert_uint_eq(pace_rows(&pace, 8 * MS), 8); /* by what was said at first */
    for (int i = 0; i < 100; i++)
        pace_computed(&pace, MOST, MOST * MS / 2, false);
    ck_assert_uint_eq(pace_rows(&pace, 8 * MS + 1), 16);
    pace_computed(&pace, 3, 100 * MS, false); /* of a few rows only: no measure */
    ck_assert_uint_eq(pace_rows(&pace, 8 * MS + 1), 16);
    ck_assert_uint_eq(pace_rows(&pace, 1), 1);
    ck_assert_uint_eq(pace_rows(&pace, 1000 * MS), MOST);
}
END_TEST

/* Large weights: a batch takes 60 ms whatever is in it, and a quarter of a millisecond for a row.
 */
START_TEST(a_batch_is_not_cut_to_less_than_half_the_speed)
{
    size_t rows = MOST;
    for (int i = 0; i < 60; i++) {
        pace_computed(&pace, rows, 60 * MS + rows * MS / 4, rows < MOST);
        if (i > 30) /* the first guess is forgotten */
            rows = pace_rows(&pace, 2 * MS);
    }
    const double full = MOST / (60 + MOST / 4.0), cut = (double)rows / (60 + (double)rows / 4);
    ck_assert_msg(cut > 0.45 * full && rows < MOST, "%zu rows", rows);
}
END_TEST

TEST_MAIN_WITH("pace", begin, end, nothing_is_known_of_the_queue_at_first,
               the_time_in_which_rows_leave, idle_time_is_not_counted,
               a_slice_is_as_many_rows_as_it_has_time_for,
               a_batch_is_not_cut_to_less_than_half_the_speed)

/* The batching policy: when rows are computed, and together with which others. */
#include "scheduler_fixture.h"

START_TEST(a_small_job_is_computed_at_once)
{
    start(0);
    struct posted *job = submit("small", 3, -1);
    ck_assert(job->finished);
    expect_answer(job, -1);
    const struct stats *stats = stats_of("small");
    ck_assert_uint_eq(stats->rows, 3);
    ck_assert_double_eq(stats->batch_rows.sum, 3);
    ck_assert_uint_eq(stats->routing[0]->gates[0]->items, 3);
    ck_assert_uint_eq(stats->routing[0]->gates[0]->expert[0].selected, 2);
    ck_assert_uint_eq(stats->routing[0]->gates[0]->expert[1].selected, 1);
}
END_TEST

START_TEST(a_larger_job_waits_for_the_end_of_the_turn)
{
    start(0);
    struct posted *job = submit("small", 110, 1);
    ck_assert(!job->finished);
    ck_assert_uint_eq(lane("small")->queue.rows, 110);
    struct posted *next = submit("small", 1, 500); /* no longer alone */
    ck_assert(!next->finished);
    run_until(2);
    ck_assert_ptr_eq(finished[0], next); /* in the first batch */
    expect_answer(job, 1);
    expect_answer(next, 500);
    /* 111 rows in batches of 32 */
    ck_assert_uint_eq(stats_of("small")->rows, 111);
    ck_assert_uint_eq(stats_of("small")->routing[0]->gates[0]->items, 111);
}
END_TEST

START_TEST(jobs_of_one_turn_share_batches)
{
    write_dense("loop", 1);
    start(0);
    for (int i = 0; i < 4; i++)
        submit("loop", 3, (float)i);
    ck_assert_uint_eq(finished_count, 0);
    run_until(4);
    for (int i = 0; i < 4; i++)
        expect_answer(&posted[i], (float)i);
    const struct histogram *batches = &stats_of("loop")->batch_rows;
    ck_assert_double_eq(batches->sum, 12);
    ck_assert_uint_eq(batches->counts[4], 1); /* one batch of 9 to 16 rows */
}
END_TEST

START_TEST(a_full_queue_refuses_and_goes_on)
{
    write_dense("large", 24);
    start(0);
    struct error err = ERROR_INIT;
    struct posted *full = submit("large", QUEUE_ROWS, 0);
    struct posted *refused = new_job("large", 1, 0);
    ck_assert_int_eq(once_submit(refused->job.lane, &refused->job, &err), -1);
    ck_assert_int_eq(err.code, ERROR_OVERLOADED);
    once_cancel(full->job.lane, &full->job);
    struct posted *next = submit("large", 1, 4);
    run_until(2);
    expect_answer(next, 4);
    ck_assert(!refused->finished);
}
END_TEST

static void submit_again(struct posted *done)
{
    after_finish = NULL;
    (void)done;
    expect_answer(submit("small", BATCH_ROWS, 77), 77);
}

/* An answer may immediately bring the next request; it must not damage the batch whose results are
 * being returned. */
START_TEST(a_job_submitted_from_an_answer)
{
    start(0);
    struct posted *first = submit("small", 2, 1);
    expect_answer(first, 1);
    lane("small")->options.max_queue_delay_ns = 1; /* both wait, and share a batch */
    struct posted *second = submit("small", 12, -110), *last = submit("small", 5, -3);
    lane("small")->options.max_queue_delay_ns = 0;
    after_finish = submit_again;
    run_until(4);
    expect_answer(second, -110);
    expect_answer(last, -3);
}
END_TEST

START_TEST(a_held_batch_is_released_when_due)
{
    enum { HELD_US = 500000 };
    start(HELD_US);
    const uint64_t due = uv_hrtime() + HELD_US * UINT64_C(1000);
    struct posted *first = submit("small", 1, 5);
    ck_assert(!first->finished);
    for (int i = 0; i < 5; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    ck_assert_msg(!first->finished || uv_hrtime() >= due, "not held");
    if (first->finished) /* this machine is too busy to get there before the deadline */
        return;
    struct posted *second = submit("small", 1, 6);
    run_until(2);
    ck_assert_uint_ge(uv_hrtime(), due);
    expect_answer(first, 5);
    expect_answer(second, 6);
    ck_assert_double_eq(stats_of("small")->batch_rows.sum, 2);
    ck_assert_uint_eq(stats_of("small")->batch_rows.counts[1], 1); /* one batch of two */
}
END_TEST

START_TEST(a_full_batch_is_not_held)
{
    start(TEST_SECONDS * UINT64_C(1000000)); /* longer than the watchdog waits */
    for (int i = 0; i < BATCH_ROWS; i++)
        submit("small", 1, (float)i);
    run_until(BATCH_ROWS);
    for (int i = 0; i < BATCH_ROWS; i++)
        expect_answer(&posted[i], (float)i);
}
END_TEST

START_TEST(nothing_to_do_ends_at_once)
{
    start(0);
    uv_run(&loop, UV_RUN_DEFAULT); /* the scheduler's own handles do not keep a loop alive */
}
END_TEST

TEST_MAIN_WITH("scheduler", begin, end, a_small_job_is_computed_at_once,
               a_larger_job_waits_for_the_end_of_the_turn, jobs_of_one_turn_share_batches,
               a_full_queue_refuses_and_goes_on, a_job_submitted_from_an_answer,
               a_held_batch_is_released_when_due, a_full_batch_is_not_held,
               nothing_to_do_ends_at_once)

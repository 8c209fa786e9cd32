/* The compute thread: which batches go to it, in which order, and what happens to jobs
 * meanwhile. */
#include "scheduler_fixture.h"

START_TEST(a_large_batch_goes_to_the_compute_thread)
{
    write_dense("large", 24);
    start(0);
    struct posted *job = submit("large", 5, 7);
    run_until_busy();
    ck_assert(lane("large")->lane.busy);
    ck_assert_uint_eq(job->job.rows_running, 5);
    run_until(1);
    expect_answer(job, 7);
    ck_assert(!lane("large")->lane.busy);
    ck_assert(!scheduler.engine.busy);
    ck_assert_uint_eq(stats_of("large")->rows, 5);
}
END_TEST

START_TEST(a_job_larger_than_a_batch_is_one_answer)
{
    write_dense("large", 24);
    start(0);
    struct posted *job = submit("large", 70, 1), *other = submit("large", 2, 900);
    run_until(2);
    expect_answer(job, 1);
    expect_answer(other, 900);
    ck_assert_uint_eq(stats_of("large")->rows, 72);
}
END_TEST

START_TEST(small_models_do_not_wait_for_large_ones)
{
    write_dense("large", 24);
    start(0);
    struct posted *large = submit("large", BATCH_ROWS, 1);
    run_until_busy();
    struct posted *small = submit("small", 1, 2);
    ck_assert(small->finished);
    ck_assert(!large->finished);
    run_until(2);
    expect_answer(large, 1);
}
END_TEST

START_TEST(cancelling_what_waits_answers_at_once)
{
    write_dense("large", 24);
    start(0);
    struct posted *running = submit("large", BATCH_ROWS, 1);
    run_until_busy();
    struct posted *waiting = submit("large", 3, 5), *other = submit("large", 2, 8);
    once_cancel(waiting->job.lane, &waiting->job);
    ck_assert(waiting->finished);
    ck_assert(!running->finished);
    run_until(3);
    expect_answer(running, 1);
    expect_answer(other, 8);
    ck_assert_uint_eq(stats_of("large")->rows, BATCH_ROWS + 2);
}
END_TEST

START_TEST(cancelling_what_runs_answers_when_it_is_done)
{
    write_dense("large", 24);
    start(0);
    struct posted *job = submit("large", BATCH_ROWS + 4, 1);
    run_until_busy();
    error_set(&job->job.error, ERROR_DISCONNECTED, "gone");
    once_cancel(job->job.lane, &job->job);
    ck_assert(!job->finished);
    ck_assert_uint_eq(job->job.rows_waiting, 0);
    ck_assert_uint_eq(job->job.rows_running, BATCH_ROWS);
    run_until(1);
    ck_assert_uint_eq(stats_of("large")->rows, BATCH_ROWS);
    ck_assert_uint_eq(lane("large")->queue.rows, 0);
}
END_TEST

static void (*scheduler_on_done)(struct lane *lane, uint64_t compute_ns, void *context);
static uint64_t longest_ns;

/* Lanes that have work all the time have had the same time, but for a piece. */
static void expect_fair(struct lane *lane, uint64_t compute_ns, void *context)
{
    longest_ns = compute_ns > longest_ns ? compute_ns : longest_ns;
    scheduler_on_done(lane, compute_ns, context);
    for (size_t i = 0; i < lanes.count; i++)
        for (size_t j = 0; j < lanes.count; j++) {
            const struct once *a = once_of(lanes.items[i]), *b = once_of(lanes.items[j]);
            if (a->queue.rows > 0 && b->queue.rows > 0)
                ck_assert_uint_le(a->lane.turn_ns, b->lane.turn_ns + longest_ns);
        }
}

/* Busy models share the compute thread by the time that their rows take, not by rows. */
START_TEST(large_models_take_turns)
{
    enum { ROUNDS = 4 };
    write_dense("large_a", 24);
    write_dense("large_b", 48);
    write_dense("large_c", 24);
    start(0);
    scheduler_on_done = scheduler.engine.on_done;
    scheduler.engine.on_done = expect_fair;
    for (int round = 0; round < ROUNDS; round++) {
        submit("large_a", BATCH_ROWS, (float)round);
        submit("large_b", BATCH_ROWS, (float)round);
        submit("large_c", BATCH_ROWS, (float)round);
    }
    run_until((size_t)3 * ROUNDS);
    ck_assert_uint_gt(stats_of("large_a")->batches, ROUNDS); /* and are told to be short */
}
END_TEST

/* Batches that became cheap while they waited behind an expensive one: nothing else would wake the
 * loop for them. */
START_TEST(leftovers_do_not_wait_for_the_next_request)
{
    write_dense("loop", 12); /* 32 rows are for the compute thread, one is not */
    start(0);
    submit("loop", BATCH_ROWS, 1);
    run_until_busy();
    for (int i = 0; i < 6; i++) {
        submit("loop", BATCH_ROWS - 1, 1);
        submit("loop", 1, 1);
    }
    uv_run(&loop, UV_RUN_NOWAIT);
    for (size_t i = 1; i < posted_count; i += 2)
        once_cancel(posted[i].job.lane, &posted[i].job);
    run_until(posted_count);
    expect_answer(&posted[2], 1);
    expect_answer(&posted[12], 1);
}
END_TEST

START_TEST(waits_are_counted_per_batch_and_job)
{
    write_dense("large", 24);
    start(0);
    submit("large", BATCH_ROWS + 1, 1); /* two batches */
    submit("large", 1, 1);              /* in the second */
    run_until(2);
    const struct stats *stats = stats_of("large");
    uint64_t waits = 0, batches = 0;
    for (size_t i = 0; i <= stats->queue_seconds.bound_count; i++)
        waits += stats->queue_seconds.counts[i];
    for (size_t i = 0; i <= stats->compute_seconds.bound_count; i++)
        batches += stats->compute_seconds.counts[i];
    ck_assert_uint_eq(waits, 3);
    ck_assert_uint_eq(batches, 2);
}
END_TEST

/* Layers without multiply-accumulates take time too; it is measured at load. */
START_TEST(element_wise_work_is_not_done_on_the_loop)
{
    char path[PATH_MAX];
    char *config = config_of("[400000]", "[{'op':'gelu'},{'op':'gelu'},{'op':'gelu'},{'op':'gelu'},"
                                         "{'op':'sum','axis':0},{'op':'reshape','shape':[1]}]");
    snprintf(path, sizeof path, "%s/gelu", repository);
    write_checkpoint(path, config, NO_TENSORS);
    free(config);
    costs_are_as_computed = false;
    start(0);
    struct posted *job = submit("gelu", 1, 0);
    ck_assert(!job->finished);
    run_until_busy();
    run_until(1);
    ck_assert(job->finished);
}
END_TEST

TEST_MAIN_WITH("engine", begin, end, a_large_batch_goes_to_the_compute_thread,
               a_job_larger_than_a_batch_is_one_answer, small_models_do_not_wait_for_large_ones,
               cancelling_what_waits_answers_at_once, cancelling_what_runs_answers_when_it_is_done,
               large_models_take_turns, leftovers_do_not_wait_for_the_next_request,
               waits_are_counted_per_batch_and_job, element_wise_work_is_not_done_on_the_loop)

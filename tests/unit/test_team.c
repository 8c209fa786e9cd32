/* Fork and join: every task runs once, on threads with distinct numbers, and nothing is left. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/dense/team.h"
#include "support.h"

enum { MAX_TASKS = 1000, THREADS = 4 };

struct work {
    atomic_int done[MAX_TASKS];
    atomic_int inside[THREADS]; /* tasks running under each worker's number */
    atomic_int clashes;
    int part[THREADS][64];
};

static void task(void *context, size_t index, unsigned worker)
{
    struct work *work = context;
    if (worker >= THREADS || atomic_fetch_add(&work->inside[worker], 1) != 0)
        atomic_fetch_add(&work->clashes, 1);
    atomic_fetch_add(&work->done[index], 1);
    work->part[worker][0] += (int)index; /* memory of the worker's own: no lock */
    atomic_fetch_sub(&work->inside[worker], 1);
}

static void expect_all_done(struct moed_team *team, size_t count)
{
    struct work *work = xcalloc(1, sizeof *work);
    team_run(team, count, task, work);
    int sum = 0;
    for (int i = 0; i < THREADS; i++)
        sum += work->part[i][0];
    ck_assert_int_eq(sum, (int)(count * (count - (count > 0)) / 2));
    ck_assert_int_eq(work->clashes, 0);
    for (size_t i = 0; i < MAX_TASKS; i++)
        if (work->done[i] != (i < count))
            ck_abort_msg("task %zu of %zu ran %d times", i, count, work->done[i]);
    free(work);
}

START_TEST(every_task_runs_once)
{
    for (unsigned threads = 1; threads <= THREADS; threads++) {
        struct moed_team *team = moed_team_new(threads);
        ck_assert_uint_eq(team_size(team), threads);
        for (size_t count = 0; count <= 9; count++)
            expect_all_done(team, count);
        expect_all_done(team, MAX_TASKS);
        moed_team_free(team);
    }
}
END_TEST

START_TEST(no_team_is_the_caller_alone)
{
    ck_assert_uint_eq(team_size(NULL), 1);
    expect_all_done(NULL, 5);
    moed_team_free(NULL);
}
END_TEST

START_TEST(a_fork_is_for_work_that_is_worth_it)
{
    struct moed_team *team = moed_team_new(2);
    ck_assert_ptr_null(team_for(team, 1000));
    ck_assert_ptr_eq(team_for(team, UINT64_C(1) << 40), team);
    team_fork_from(team, 0);
    ck_assert_ptr_eq(team_for(team, 0), team);
    ck_assert_ptr_null(team_for(NULL, UINT64_C(1) << 40));
    moed_team_free(team);
}
END_TEST

static void note_thread(void *context, size_t index, unsigned worker)
{
    pthread_t *threads = context;
    (void)worker;
    threads[index] = pthread_self();
}

START_TEST(one_thread_and_one_task_stay_with_the_caller)
{
    pthread_t threads[8];
    struct moed_team *alone = moed_team_new(1), *team = moed_team_new(4);
    team_run(alone, 8, note_thread, threads);
    for (size_t i = 0; i < 8; i++)
        ck_assert(pthread_equal(threads[i], pthread_self()));
    team_run(team, 1, note_thread, threads);
    ck_assert(pthread_equal(threads[0], pthread_self()));
    moed_team_free(alone);
    moed_team_free(team);
}
END_TEST

static void meet(void *context, size_t index, unsigned worker)
{
    (void)index, (void)worker;
    pthread_barrier_wait(context);
}

/* Tasks that wait for each other end only if each has its own thread. */
START_TEST(threads_really_run_side_by_side)
{
    pthread_barrier_t barrier;
    struct moed_team *team = moed_team_new(THREADS);
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < 20; i++)
        team_run(team, THREADS, meet, &barrier);
    pthread_barrier_destroy(&barrier);
    moed_team_free(team);
}
END_TEST

/* A helper that wakes late must not take tasks of the next fork with the last fork's context. */
START_TEST(many_short_forks)
{
    struct moed_team *team = moed_team_new(THREADS);
    for (size_t i = 0; i < 2000; i++) {
        struct work work = {.clashes = 0};
        team_run(team, 2 + i % 5, task, &work);
        int done = 0;
        for (size_t j = 0; j < 8; j++)
            done += work.done[j];
        ck_assert_int_eq(done, (int)(2 + i % 5));
    }
    moed_team_free(team);
}
END_TEST

START_TEST(teams_that_never_worked_can_go)
{
    for (int i = 0; i < 50; i++)
        moed_team_free(moed_team_new(3));
}
END_TEST

TEST_MAIN("team", every_task_runs_once, no_team_is_the_caller_alone,
          one_thread_and_one_task_stay_with_the_caller, threads_really_run_side_by_side,
          many_short_forks, teams_that_never_worked_can_go, a_fork_is_for_work_that_is_worth_it)

/* Which rows are computed when, and on which thread: scheduler and engine with real models and no
 * sockets. A test's jobs are answered by on_finished(), which notes the order.
 *
 * The models: `small` is computed where it is submitted when a job has few rows; `loop` and full
 * batches of `large_*` cost more than that: a row of `loop` runs on the loop thread, a row of
 * `large_*` goes to the compute thread. */
#include "support.h"

#include "server/log.h"
#include "server/scheduler.h"

enum { BATCH_ROWS = 32, QUEUE_ROWS = 400, MAX_JOBS = 64 };

static char *repository;
static uv_loop_t loop;
static uv_timer_t watchdog;
static bool watchdog_fired;
static struct registry registry;
static struct scheduler scheduler;

/* ---- models ---- */

/* Two experts, f and its negative: for positive inputs the first. 1000 multiply-adds and some a
 * row. */
static void write_small(void)
{
    char path[PATH_MAX];
    float up[2][500 * 2], down[500];
    for (size_t i = 0; i < 500; i++) {
        up[0][2 * i] = 1, up[0][2 * i + 1] = 0;
        up[1][2 * i] = -1, up[1][2 * i + 1] = 0;
        down[i] = 0.002f;
    }
    const struct stored tensors[] = {STORED("m.gate.g.weight", DIMS(2, 2), 1, 0, -1, 0),
                                     {"m.experts.0.up.weight", 2, {500, 2}, up[0], NULL},
                                     {"m.experts.1.up.weight", 2, {500, 2}, up[1], NULL},
                                     {"m.experts.0.down.weight", 2, {1, 500}, down, NULL},
                                     {"m.experts.1.down.weight", 2, {1, 500}, down, NULL}};
    char *config = config_of(
        "[2]", "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}],"
               "'score':'none','top_k':1,'normalize':'sum'},'experts':{'count':2,'layers':["
               "{'op':'linear','name':'up'},{'op':'relu'},{'op':'linear','name':'down'}]}}]");
    snprintf(path, sizeof path, "%s/small", repository);
    write_checkpoint(path, config, tensors, 5);
    free(config);
}

/* A square matrix of ones times each of `positions` vectors: the sum of all numbers, the long way.
 */
static void write_dense(const char *name, size_t positions)
{
    enum { WIDTH = 512 };
    char path[PATH_MAX], shape[32], layers[256];
    float *ones = xmalloc(WIDTH * WIDTH * sizeof *ones);
    for (size_t i = 0; i < WIDTH * WIDTH; i++)
        ones[i] = 1;
    const struct stored tensor = {"fc.weight", 2, {WIDTH, WIDTH}, ones, NULL};
    snprintf(shape, sizeof shape, "[%zu]", positions * WIDTH);
    snprintf(layers, sizeof layers,
             "[{'op':'reshape','shape':[%zu,512]},{'op':'linear','name':'fc'},"
             "{'op':'mean','axis':-1},{'op':'sum','axis':0},{'op':'reshape','shape':[1]}]",
             positions);
    char *config = config_of(shape, layers);
    snprintf(path, sizeof path, "%s/%s", repository, name);
    write_checkpoint(path, config, &tensor, 1);
    free(config);
    free(ones);
}

static struct served *model(const char *name)
{
    struct served *served = registry_find(&registry, name, NULL, NULL);
    ck_assert_ptr_nonnull(served);
    return served;
}

/* ---- jobs ---- */

/* A request for `rows` rows whose first numbers are value, value + 1, ... */
struct posted {
    struct job job; /* first: on_finished() gets back from a job to its request */
    struct infer_input input;
    float *body;
    float *y;
    int32_t *experts;
    float *weights;
    bool finished;
};

static struct posted posted[MAX_JOBS];
static size_t posted_count;
static struct posted *finished[MAX_JOBS];
static size_t finished_count;
static void (*after_finish)(struct posted *posted);

static void on_finished(struct job *job)
{
    struct posted *done = (struct posted *)job;
    ck_assert(!done->finished);
    ck_assert_uint_eq(job->rows_waiting + job->rows_running, 0);
    done->finished = true;
    finished[finished_count++] = done;
    if (after_finish)
        after_finish(done);
}

static struct posted *new_job(const char *name, size_t rows, float value)
{
    struct posted *job = &posted[posted_count++];
    struct served *served = model(name);
    const size_t elements = served->info->inputs[0].elements;
    *job = (struct posted){.job.served = served, .job.wants_routing = served->info->moe_count > 0};
    job->body = xcalloc(rows * elements, sizeof *job->body);
    for (size_t row = 0; row < rows; row++)
        job->body[row * elements] = value + (float)row;
    job->y = xcalloc(rows, sizeof *job->y);
    job->experts = xcalloc(rows, sizeof *job->experts);
    job->weights = xcalloc(rows, sizeof *job->weights);
    job->input = (struct infer_input){"data", (const char *)job->body,
                                      rows * elements * sizeof(float), true, DATATYPE_FP32};
    job->job.request = (struct infer_request){.signature = &served->signature,
                                              .body = (const char *)job->body,
                                              .rows = rows,
                                              .inputs = &job->input};
    job->job.outputs = &job->y;
    job->job.routing_experts = &job->experts;
    job->job.routing_weights = &job->weights;
    return job;
}

static struct posted *submit(const char *name, size_t rows, float value)
{
    struct error err = ERROR_INIT;
    struct posted *job = new_job(name, rows, value);
    int result = scheduler_submit(&scheduler, &job->job, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    return job;
}

/* Every model answers the first number of a row, `small` with its absolute value. */
static void expect_answer(const struct posted *job, float value)
{
    ck_assert(job->finished);
    for (size_t row = 0; row < job->job.request.rows; row++) {
        const float x = value + (float)row;
        const bool routed = job->job.wants_routing;
        ck_assert_float_eq_tol(job->y[row], (routed ? fabsf(x) : x), 1e-3f);
        if (routed && x != 0)
            ck_assert_int_eq(job->experts[row], x < 0);
        if (routed)
            ck_assert_float_eq(job->weights[row], 1);
    }
}

/* ---- the loop ---- */

static void on_watchdog(uv_timer_t *timer)
{
    watchdog_fired = true;
    uv_stop(timer->loop);
}

/* Runs the loop as a server's would, with nothing in it that wakes it, until so many jobs are
 * finished. */
static void run_until(size_t count)
{
    watchdog_fired = false;
    uv_timer_start(&watchdog, on_watchdog, 20000, 0);
    while (finished_count < count && !watchdog_fired)
        uv_run(&loop, UV_RUN_ONCE);
    uv_timer_stop(&watchdog);
    ck_assert_msg(!watchdog_fired, "%zu of %zu jobs are finished", finished_count, count);
}

/* Until the compute thread has a batch. */
static void run_until_busy(void)
{
    for (int i = 0; i < 100 && !scheduler.engine.busy; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    ck_assert(scheduler.engine.busy);
}

static void start(uint64_t max_queue_delay_us)
{
    struct error err = ERROR_INIT;
    const struct served_options options = {BATCH_ROWS, QUEUE_ROWS, 2};
    int result = registry_init(&registry, repository, &options, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    uv_loop_init(&loop);
    uv_timer_init(&loop, &watchdog);
    result = scheduler_init(&scheduler, &loop, &registry, 2, max_queue_delay_us, on_finished, &err);
    ck_assert_msg(result == 0, "%s", err.text);
}

static void begin(void)
{
    log_set_level(LOG_ERROR);
    repository = new_directory();
    write_small();
}

/* What a server does at its end; nothing may be left over. */
static void end(void)
{
    scheduler_close(&scheduler);
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
    registry_close(&registry);
    for (size_t i = 0; i < posted_count; i++) {
        free(posted[i].body);
        free(posted[i].y);
        free(posted[i].experts);
        free(posted[i].weights);
    }
    free(repository);
}

/* ---- tests ---- */

START_TEST(a_small_job_is_computed_at_once)
{
    start(0);
    struct posted *job = submit("small", 3, -1);
    ck_assert(job->finished);
    expect_answer(job, -1);
    const struct stats *stats = &model("small")->stats;
    ck_assert_uint_eq(stats->rows, 3);
    ck_assert_double_eq(stats->batch_rows.sum, 3);
    ck_assert_uint_eq(stats->routing[0].items, 3);
    ck_assert_uint_eq(stats->routing[0].selected[0], 2);
    ck_assert_uint_eq(stats->routing[0].selected[1], 1);
}
END_TEST

START_TEST(a_larger_job_waits_for_the_end_of_the_turn)
{
    start(0);
    struct posted *job = submit("small", 110, 1);
    ck_assert(!job->finished);
    ck_assert_uint_eq(model("small")->queue.rows, 110);
    struct posted *next = submit("small", 1, 500); /* not alone any more: behind the first */
    ck_assert(!next->finished);
    run_until(2);
    ck_assert_ptr_eq(finished[0], job);
    expect_answer(job, 1);
    expect_answer(next, 500);
    /* 111 rows in batches of 32 */
    ck_assert_uint_eq(model("small")->stats.rows, 111);
    ck_assert_uint_eq(model("small")->stats.routing[0].items, 111);
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
    const struct histogram *batches = &model("loop")->stats.batch_rows;
    ck_assert_double_eq(batches->sum, 12);
    ck_assert_uint_eq(batches->counts[4], 1); /* one batch of 9 to 16 rows */
}
END_TEST

START_TEST(a_large_batch_goes_to_the_compute_thread)
{
    write_dense("large", 24);
    start(0);
    struct posted *job = submit("large", 5, 7);
    run_until_busy();
    ck_assert(model("large")->busy);
    ck_assert_uint_eq(job->job.rows_running, 5);
    run_until(1);
    expect_answer(job, 7);
    ck_assert(!model("large")->busy);
    ck_assert(!scheduler.engine.busy);
    ck_assert_uint_eq(model("large")->stats.rows, 5);
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
    ck_assert_uint_eq(model("large")->stats.rows, 72);
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
    scheduler_cancel(&scheduler, &waiting->job);
    ck_assert(waiting->finished);
    ck_assert(!running->finished);
    run_until(3);
    expect_answer(running, 1);
    expect_answer(other, 8);
    ck_assert_uint_eq(model("large")->stats.rows, BATCH_ROWS + 2);
}
END_TEST

START_TEST(cancelling_what_runs_answers_when_it_is_done)
{
    write_dense("large", 24);
    start(0);
    struct posted *job = submit("large", BATCH_ROWS + 4, 1);
    run_until_busy();
    error_set(&job->job.error, ERROR_DISCONNECTED, "gone");
    scheduler_cancel(&scheduler, &job->job);
    ck_assert(!job->finished);
    ck_assert_uint_eq(job->job.rows_waiting, 0);
    ck_assert_uint_eq(job->job.rows_running, BATCH_ROWS);
    run_until(1);
    ck_assert_uint_eq(model("large")->stats.rows, BATCH_ROWS);
    ck_assert_uint_eq(model("large")->queue.rows, 0);
}
END_TEST

START_TEST(a_full_queue_refuses_and_goes_on)
{
    write_dense("large", 24);
    start(0);
    struct error err = ERROR_INIT;
    struct posted *full = submit("large", QUEUE_ROWS, 0);
    struct posted *refused = new_job("large", 1, 0);
    ck_assert_int_eq(scheduler_submit(&scheduler, &refused->job, &err), -1);
    ck_assert_int_eq(err.code, ERROR_OVERLOADED);
    scheduler_cancel(&scheduler, &full->job);
    struct posted *next = submit("large", 1, 4);
    run_until(2);
    expect_answer(next, 4);
    ck_assert(!refused->finished);
}
END_TEST

/* Each of three busy models gets the compute thread every third time. */
START_TEST(large_models_take_turns)
{
    static const char *const names[] = {"large_a", "large_b", "large_c"};
    enum { ROUNDS = 4 };
    for (size_t i = 0; i < 3; i++)
        write_dense(names[i], 24);
    start(0);
    for (size_t i = 0; i < 3; i++)
        for (int round = 0; round < ROUNDS; round++)
            submit(names[i], BATCH_ROWS, (float)round);
    run_until(3 * ROUNDS);
    for (size_t i = 0; i < 3 * ROUNDS; i++)
        for (size_t j = i + 1; j < i + 3 && j < 3 * ROUNDS; j++)
            ck_assert_msg(finished[i]->job.served != finished[j]->job.served,
                          "model %s was served as %zu and %zu", finished[i]->job.served->name, i,
                          j);
}
END_TEST

/* Batches that became cheap behind an expensive one: nothing else would wake the loop for them. */
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
        scheduler_cancel(&scheduler, &posted[i].job);
    const uint64_t began = uv_hrtime();
    run_until(posted_count);
    ck_assert_uint_lt(uv_hrtime() - began, 10000000000u);
    expect_answer(&posted[2], 1);
    expect_answer(&posted[12], 1);
}
END_TEST

static void submit_again(struct posted *done)
{
    after_finish = NULL;
    (void)done;
    expect_answer(submit("small", BATCH_ROWS, 77), 77);
}

/* An answer may bring the next request at once; it must not spoil the batch whose results are
 * handed out. */
START_TEST(a_job_submitted_from_an_answer)
{
    start(0);
    struct posted *first = submit("small", 2, 1);
    expect_answer(first, 1);
    /* too large to be computed at once, so both wait and share the last batch */
    struct posted *large = submit("small", 120, -110), *last = submit("small", 5, -3);
    after_finish = submit_again;
    run_until(4);
    expect_answer(large, -110);
    expect_answer(last, -3);
}
END_TEST

START_TEST(a_held_batch_is_released_when_due)
{
    start(40000);
    const uint64_t began = uv_hrtime();
    struct posted *first = submit("small", 1, 5);
    ck_assert(!first->finished);
    for (int i = 0; i < 5; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    ck_assert_msg(!first->finished || uv_hrtime() - began >= 40000000, "not held");
    struct posted *second = submit("small", 1, 6);
    run_until(2);
    ck_assert_uint_ge(uv_hrtime() - began, 40000000);
    expect_answer(first, 5);
    expect_answer(second, 6);
    ck_assert_double_eq(model("small")->stats.batch_rows.sum, 2);
    ck_assert_uint_eq(model("small")->stats.batch_rows.counts[1], 1); /* one batch of two */
}
END_TEST

START_TEST(a_full_batch_is_not_held)
{
    start(30000000); /* longer than the watchdog waits */
    for (int i = 0; i < BATCH_ROWS; i++)
        submit("small", 1, (float)i);
    run_until(BATCH_ROWS);
    for (int i = 0; i < BATCH_ROWS; i++)
        expect_answer(&posted[i], (float)i);
}
END_TEST

START_TEST(waits_are_counted_per_batch_and_job)
{
    write_dense("large", 24);
    start(0);
    submit("large", BATCH_ROWS + 1, 1); /* two batches */
    submit("large", 1, 1);              /* in the second */
    run_until(2);
    const struct stats *stats = &model("large")->stats;
    uint64_t waits = 0, batches = 0;
    for (size_t i = 0; i <= stats->queue_seconds.bound_count; i++)
        waits += stats->queue_seconds.counts[i];
    for (size_t i = 0; i <= stats->compute_seconds.bound_count; i++)
        batches += stats->compute_seconds.counts[i];
    ck_assert_uint_eq(waits, 3);
    ck_assert_uint_eq(batches, 2);
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
               a_large_batch_goes_to_the_compute_thread, a_job_larger_than_a_batch_is_one_answer,
               small_models_do_not_wait_for_large_ones, cancelling_what_waits_answers_at_once,
               cancelling_what_runs_answers_when_it_is_done, a_full_queue_refuses_and_goes_on,
               large_models_take_turns, leftovers_do_not_wait_for_the_next_request,
               a_job_submitted_from_an_answer, a_held_batch_is_released_when_due,
               a_full_batch_is_not_held, waits_are_counted_per_batch_and_job,
               nothing_to_do_ends_at_once)

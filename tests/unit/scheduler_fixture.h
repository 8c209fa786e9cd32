/* Runs the scheduler and the engine with real models and without sockets. on_finished() answers a
 * test's jobs and records their order.
 *
 * A job of few rows of the model `small` is computed when it is submitted. `loop` and `large_*`
 * cost more: a row of `loop` is computed on the loop thread, a row of `large_*` and full batches of
 * both on the compute thread. */
#ifndef TEST_SCHEDULER_FIXTURE_H
#define TEST_SCHEDULER_FIXTURE_H

#include "repository_fixture.h"
#include "server/compute/lanes.h"
#include "server/log.h"
#include "support.h"

enum { BATCH_ROWS = 32, QUEUE_ROWS = 400, MAX_JOBS = 64 };

static char *repository;
static uv_loop_t loop;
static uv_timer_t watchdog;
static bool watchdog_fired;
static struct catalog *catalog;
static struct scheduler scheduler;
static struct lanes lanes;
static bool costs_are_as_computed = true;

/* ---- models ---- */

/* Two experts, f and its negative: the first serves positive inputs. A row takes a bit more than
 * 1000 multiply-adds. */
static inline void write_small(void)
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

/* A square matrix of ones times each of `positions` vectors: an expensive sum of all numbers. */
static inline void write_dense(const char *name, size_t positions)
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

static inline struct model *model(const char *name)
{
    struct model *found = catalog_find(catalog, name, NULL, NULL);
    ck_assert_ptr_nonnull(found);
    return found;
}

static inline struct once *lane(const char *name)
{
    struct error err = ERROR_INIT;
    struct once *once = lanes_of(&lanes, model(name), &err);
    ck_assert_msg(once != NULL, "%s", err.text);
    return once;
}

/* The statistics of the only loop. */
static inline const struct stats *stats_of(const char *name)
{
    return &model(name)->stats->loop[0];
}

/* ---- jobs ---- */

/* A request of `rows` rows, whose first numbers are value, value + 1, ... */
struct posted {
    struct job job; /* first member, so that on_finished() can cast a job to its request */
    struct infer_input input;
    float *body;
    float *y;
    int32_t *experts;
    float *weights;
    float *probabilities; /* NULL: not asked */
    bool finished;
};

static struct posted posted[MAX_JOBS];
static size_t posted_count;
static struct posted *finished[MAX_JOBS];
static size_t finished_count;
static void (*after_finish)(struct posted *posted);

static inline void on_finished(struct job *job)
{
    struct posted *done = (struct posted *)job;
    ck_assert(!done->finished);
    ck_assert_uint_eq(job->rows_waiting + job->rows_running, 0);
    done->finished = true;
    finished[finished_count++] = done;
    if (after_finish)
        after_finish(done);
}

static inline struct posted *new_job(const char *name, size_t rows, float value)
{
    struct posted *job = &posted[posted_count++];
    struct model *of = model(name);
    const size_t elements = of->info->inputs[0].elements;
    *job = (struct posted){.job.model = of,
                           .job.counted = true,
                           .job.lane = lane(name),
                           .job.deadline_ns = UINT64_MAX,
                           .job.wants_routing = of->info->gate_count > 0};
    job->body = xcalloc(rows * elements, sizeof *job->body);
    for (size_t row = 0; row < rows; row++)
        job->body[row * elements] = value + (float)row;
    job->y = xcalloc(rows, sizeof *job->y);
    job->experts = xcalloc(rows, sizeof *job->experts);
    job->weights = xcalloc(rows, sizeof *job->weights);
    job->input = (struct infer_input){.where = "data",
                                      .data = (const char *)job->body,
                                      .length = rows * elements * sizeof(float),
                                      .binary = true,
                                      .datatype = DATATYPE_FP32};
    job->job.request = (struct infer_request){.signature = &of->signature,
                                              .body = (const char *)job->body,
                                              .rows = rows,
                                              .inputs = &job->input};
    job->job.outputs = &job->y;
    job->job.routing_experts = &job->experts;
    job->job.routing_weights = &job->weights;
    job->job.routing_probabilities = &job->probabilities;
    return job;
}

static inline struct posted *submit(const char *name, size_t rows, float value)
{
    struct error err = ERROR_INIT;
    struct posted *job = new_job(name, rows, value);
    int result = once_submit(job->job.lane, &job->job, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    return job;
}

/* Every model answers with the first number of a row, `small` with its absolute value. */
static inline void expect_answer(const struct posted *job, float value)
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

static inline void on_watchdog(uv_timer_t *timer)
{
    watchdog_fired = true;
    uv_stop(timer->loop);
}

/* Runs the loop like a server's, without anything else that could wake it, until `count` jobs are
 * finished. */
static inline void run_until(size_t count)
{
    watchdog_fired = false;
    uv_timer_start(&watchdog, on_watchdog, PATIENCE_SECONDS * 1000, 0);
    while (finished_count < count && !watchdog_fired)
        uv_run(&loop, UV_RUN_ONCE);
    uv_timer_stop(&watchdog);
    ck_assert_msg(!watchdog_fired, "%zu of %zu jobs are finished", finished_count, count);
}

/* Runs one turn of the scheduler without collecting results: the compute thread has a batch and,
 * however fast it is, appears busy until the loop runs. */
static inline void run_until_busy(void)
{
    scheduler.prepare.prepare_cb(&scheduler.prepare);
    ck_assert(scheduler.engine.busy);
}

static inline void start(uint64_t max_queue_delay_us)
{
    struct error err = ERROR_INIT;
    const struct model_options models = {.loops = 1, .max_batch_rows = BATCH_ROWS, .threads = 2};
    const struct once_options once = {.max_batch_rows = BATCH_ROWS,
                                      .max_queue_rows = QUEUE_ROWS,
                                      .threads = 2,
                                      .max_queue_delay_ns = max_queue_delay_us * 1000,
                                      .on_finished = on_finished};
    catalog = load_repository(repository, &models, &err);
    ck_assert_msg(catalog != NULL, "%s", err.text);
    /* Warm-ups measure longer times under sanitizers, which would change the thread that runs a
     * batch. */
    for (size_t i = 0; i < catalog->count && costs_are_as_computed; i++)
        catalog->models[i]->cost_per_row = catalog->models[i]->info->macs_per_row;
    uv_loop_init(&loop);
    uv_timer_init(&loop, &watchdog);
    lanes_init(&lanes, &scheduler, &once, NULL, catalog);
    int result = scheduler_init(&scheduler, &loop, 2, lanes_on_empty, &lanes, &err);
    ck_assert_msg(result == 0, "%s", err.text);
}

static inline void begin(void)
{
    log_set_level(LOG_ERROR);
    repository = new_directory();
    write_small();
}

/* Ends as a server does; nothing may be left. */
static inline void end(void)
{
    scheduler_close(&scheduler);
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
    lanes_close(&lanes);
    for (size_t i = 0; i < posted_count; i++) {
        free(posted[i].job.values);
        free(posted[i].body);
        free(posted[i].y);
        free(posted[i].experts);
        free(posted[i].weights);
    }
    free(repository);
}

#endif

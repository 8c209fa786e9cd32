/* Threads that put load on a server; see load.h. With a rate, request i is due at i / rate whatever
 * happens, and its latency counts from there: a server that stalls does not slow down its own
 * measurement (coordinated omission). */
#include "clients/c/moectl/load.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/moectl/run.h"

enum { STACK_BYTES = 256 << 10, WATCH_MILLISECONDS = 200 };

struct shared {
    const struct settings *settings;
    const struct load_plan *plan;
    pthread_barrier_t ready; /* every connection is open */
    uint64_t begin;          /* nanoseconds of the monotonic clock */
    atomic_uint_fast64_t next, answered;
    atomic_size_t running;
    atomic_bool stop;
};

struct worker {
    pthread_t thread;
    struct shared *shared;
    struct moed_client *client;
    struct load_result result;
    uint64_t finished;                /* when it had its last answer */
    struct moed_client_error opening; /* why the connection could not be opened */
};

/* ---- time ---- */

uint64_t load_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void sleep_until(uint64_t nanoseconds)
{
    struct timespec time = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
        ;
}

/* ---- one thread ---- */

static struct load_error *error_of(struct load_result *result, int status)
{
    for (size_t i = 0; i < result->error_kinds; i++)
        if (result->errors[i].status == status)
            return &result->errors[i];
    if (result->error_kinds == LOAD_MOST_ERRORS)
        return &result->errors[LOAD_MOST_ERRORS - 1];
    struct load_error *error = &result->errors[result->error_kinds++];
    error->status = status;
    return error;
}

static void add_error(struct load_result *result, int status, uint64_t count, const char *text)
{
    struct load_error *error = error_of(result, status);
    if (error->count == 0)
        snprintf(error->text, sizeof error->text, "%s", text);
    error->count += count;
    result->failed += count;
}

static void send_one(struct worker *worker, const struct load_turn *turn)
{
    const struct load_plan *plan = worker->shared->plan;
    struct moed_client_error err = {0};
    uint64_t sent = load_now();
    int result = plan->send(plan->work, worker->client, turn, &worker->result, &err);
    uint64_t done = load_now();
    if (result != 0) {
        add_error(&worker->result, err.status, 1, err.text);
        return;
    }
    latency_add(&worker->result.latency, done - turn->due);
    latency_add(&worker->result.service, done - sent);
    atomic_fetch_add(&worker->shared->answered, 1);
}

/* Takes the next request and waits until it is due. False: there is none. */
static bool take_turn(struct shared *shared, struct load_turn *turn)
{
    const struct load_plan *plan = shared->plan;
    turn->number = atomic_fetch_add(&shared->next, 1);
    if (plan->requests && turn->number >= plan->requests)
        return false;
    turn->due = plan->rate > 0 ? shared->begin + (uint64_t)((double)turn->number / plan->rate * 1e9)
                               : load_now();
    if (plan->duration > 0 && (double)(turn->due - shared->begin) >= plan->duration * 1e9)
        return false;
    while (turn->due > load_now() && !atomic_load(&shared->stop)) {
        uint64_t look = load_now() + WATCH_MILLISECONDS * 1000000u;
        sleep_until(turn->due < look ? turn->due : look);
    }
    return !atomic_load(&shared->stop);
}

/* A failing server is not asked faster than a working one would answer. */
static void pause_after_failure(const struct worker *worker, uint64_t failed)
{
    if (worker->result.failed > failed && worker->shared->plan->rate <= 0)
        sleep_until(load_now() + 1000000u);
}

static void *work(void *context)
{
    struct worker *worker = context;
    struct shared *shared = worker->shared;
    const struct load_plan *plan = shared->plan;
    const struct load_turn opening = {.number = LOAD_OPENING, .due = load_now()};
    (void)!plan->send(plan->work, worker->client, &opening, NULL, &worker->opening);
    pthread_barrier_wait(&shared->ready); /* main() takes the time */
    pthread_barrier_wait(&shared->ready);
    struct load_turn turn;
    while (!atomic_load(&shared->stop) && take_turn(shared, &turn)) {
        uint64_t failed = worker->result.failed;
        send_one(worker, &turn);
        pause_after_failure(worker, failed);
    }
    worker->finished = load_now();
    atomic_fetch_sub(&shared->running, 1);
    return NULL;
}

/* ---- all of them ---- */

/* Waits for the workers; a signal stops them. Shows on a terminal how far they are. */
static bool watch(struct shared *shared, const sigset_t *signals)
{
    const struct timespec pause = {0, WATCH_MILLISECONDS * 1000000};
    bool shown = isatty(STDERR_FILENO), interrupted = false;
    while (atomic_load(&shared->running) > 0) {
        if (sigtimedwait(signals, NULL, &pause) > 0) {
            if (interrupted) /* a second one: who sent it will not wait for answers */
                _exit(EXIT_FAILURE);
            interrupted = true;
            atomic_store(&shared->stop, true);
        }
        if (shown)
            fprintf(stderr, "\r%.0f s: %llu answer%s ", (double)(load_now() - shared->begin) / 1e9,
                    (unsigned long long)atomic_load(&shared->answered),
                    ending(atomic_load(&shared->answered)));
    }
    if (shown)
        fputs("\r\033[K", stderr);
    return interrupted;
}

static void gather(struct load_result *result, const struct worker *worker)
{
    latency_merge(&result->latency, &worker->result.latency);
    latency_merge(&result->service, &worker->result.service);
    latency_merge(&result->first, &worker->result.first);
    latency_merge(&result->between, &worker->result.between);
    result->prompt_tokens += worker->result.prompt_tokens;
    result->cached_tokens += worker->result.cached_tokens;
    result->answer_tokens += worker->result.answer_tokens;
    for (size_t i = 0; i < worker->result.error_kinds; i++) {
        const struct load_error *error = &worker->result.errors[i];
        add_error(result, error->status, error->count, error->text);
    }
}

/* Starts what can be started; the rest is an error. */
static size_t start(struct worker *workers, struct shared *shared, struct moed_client_error *err)
{
    size_t started = 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (; started < shared->plan->connections; started++) {
        struct worker *worker = &workers[started];
        worker->shared = shared;
        worker->client = connect_client(shared->settings, err);
        if (!worker->client)
            break;
    }
    if (started < shared->plan->connections)
        return started;
    for (size_t i = 0; i < started; i++) {
        int result = pthread_create(&workers[i].thread, &attributes, work, &workers[i]);
        if (result != 0) { /* those that run wait at the barrier for what cannot come */
            fprintf(stderr, "moectl: cannot start thread %zu: %s\n", i, strerror(result));
            exit(EXIT_FAILURE);
        }
    }
    pthread_attr_destroy(&attributes);
    return started;
}

/* The workers are at the barrier: lets them go, and waits for their end. */
static void run_workers(struct worker *workers, struct shared *shared, const sigset_t *signals,
                        struct load_result *result)
{
    size_t count = shared->plan->connections;
    /* Until every connection is open there is nothing to show: a signal ends the process. */
    pthread_sigmask(SIG_UNBLOCK, signals, NULL);
    pthread_barrier_wait(&shared->ready);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    for (size_t i = 0; i < count; i++)
        if (workers[i].opening.code != MOED_CLIENT_OK)
            atomic_store(&shared->stop, true);
    shared->begin = load_now();
    pthread_barrier_wait(&shared->ready);
    result->interrupted = watch(shared, signals);
    for (size_t i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        result->seconds =
            fmax(result->seconds, (double)(workers[i].finished - shared->begin) / 1e9);
    }
}

static int opening_failed(const struct worker *workers, size_t count, struct moed_client_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (workers[i].opening.code != MOED_CLIENT_OK) {
            *err = workers[i].opening;
            return -1;
        }
    }
    return 0;
}

struct load_result *load_run(const struct settings *settings, const struct load_plan *plan,
                             struct moed_client_error *err)
{
    struct load_result *result = xcalloc(1, sizeof *result);
    struct worker *workers = calloc(plan->connections, sizeof *workers);
    struct shared shared = {.settings = settings, .plan = plan, .running = plan->connections};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    pthread_barrier_init(&shared.ready, NULL, (unsigned)plan->connections + 1);
    size_t started = workers ? start(workers, &shared, err) : 0;
    int status = -1;
    if (started == plan->connections) {
        run_workers(workers, &shared, &signals, result);
        status = opening_failed(workers, started, err);
    } else
        fail_with(err, "no memory for %zu connection%s", plan->connections,
                  ending(plan->connections));
    for (size_t i = 0; i < started; i++) {
        gather(result, &workers[i]);
        moed_client_free(workers[i].client);
    }
    pthread_barrier_destroy(&shared.ready);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    free(workers);
    if (status == 0)
        return result;
    free(result);
    return NULL;
}

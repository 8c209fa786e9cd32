/* The server: every part, and their life from start to drain.
 *
 * A process has one loop with everything in it, or several that are alike: each has its own
 * listening socket on the port, its own connections, queues, scratch and compute thread, and lives
 * on a thread of its own. They share the loaded models, which are immutable, and meet in one place
 * only: who answers for statistics adds up those of all (census.h). */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <stdatomic.h>

#include "server/api.h"
#include "server/http_limits.h"
#include "server/scheduler.h"

struct process {
    const struct options *options;
    struct server *servers; /* [count], one per loop */
    size_t count;
    struct http_limits *limits;
    atomic_bool stopping;  /* a signal came: not ready any more */
    atomic_size_t serving; /* loops that have not drained */
    atomic_bool lost;      /* an accepted request was not answered before the drain's timeout */
};

struct server {
    struct process *process;
    const struct options *options;
    uv_thread_t thread; /* of every loop but the first */
    uv_loop_t loop;
    struct registry registry;
    struct scheduler scheduler;
    struct predict predict;
    struct api api;
    struct http *http;
    uv_mutex_t mutex;                     /* guards the next */
    struct request_counts other_requests; /* those that reached no model */
    uv_async_t drain_asked;               /* by the first loop */
    uv_timer_t drain_limit;
    /* The first loop's alone: */
    uv_signal_t terminate, interrupt, quit, hang_up;
    uv_timer_t drain_delay;
    uv_async_t all_drained;
};

/* Loads the models, listens, serves until SIGTERM or SIGINT has been obeyed. Returns 0 after a
 * clean drain, -1 with an error when it could not start; a drain that runs out of time before every
 * accepted request is answered ends the process with status 1. */
int server_run(const struct options *options, struct error *err);

#endif

/* The server: its models, its loops, and their life from start to drain.
 *
 * There is one loop with everything in it, or several that are alike: each has its own listening
 * socket on the port, its own connections, lanes and compute thread, and lives on a thread of its
 * own. They share the models, which are counted; which of them are served is a catalog that is
 * swapped whole (server/models/loader.h). Whoever reports statistics adds up the shards of all
 * loops. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <stdatomic.h>

#include "server/http/http_limits.h"
#include "server/http/http_tls.h"
#include "server/loop.h"
#include "server/service.h"
#include "server/statistics/state.h"

struct server {
    const struct options *options;
    struct loop *loops; /* [count] */
    size_t count;
    struct http_limits *limits;
    struct access access;
    struct tls_options tls_options;
    struct tls *tls;
    struct totals *totals;
    struct loader loader;
    struct state state; /* where statistics are kept */
    struct trace trace;
    struct quarantine quarantine;
    struct loop_shared shared; /* what loops see of the above */
    struct service service;
    int terminal; /* in whose foreground it was started; -1: none */
    bool files_restricted;
    atomic_bool stopping;  /* a signal came: not ready any more */
    atomic_size_t serving; /* loops that have not drained */
    atomic_bool lost;      /* an accepted request was not answered before the drain's timeout */
    struct error fault;    /* why the start failed; the loader thread's until */
    uv_async_t failed;     /* this is sent */

    /* On the first loop: */
    uint64_t stopping_since_ms; /* when the signal came */
    uv_signal_t terminate, interrupt, quit, hang_up;
    uv_timer_t drain_delay;
    uv_timer_t statistics; /* moves the windows on */
    uv_timer_t watchdog;
    uv_async_t all_drained;
};

/* Listens, loads the models, serves until SIGTERM or SIGINT has been obeyed. Returns 0 after a
 * clean drain, -1 with an error when it could not start; a drain that runs out of time before every
 * accepted request is answered ends the process with status 1. */
MUST_CHECK int server_run(const struct options *options, struct error *err);

#endif

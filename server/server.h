/* The server: every part, and their life from start to drain. One per process; all of it lives on
 * the loop thread. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include "http.h"
#include "options.h"
#include "predict.h"
#include "registry.h"
#include "scheduler.h"

struct server {
    const struct options *options;
    uv_loop_t loop;
    struct registry registry;
    struct scheduler scheduler;
    struct predict predict;
    struct http *http;
    struct request_counts other_requests; /* those that reached no model */
    uv_signal_t terminate, interrupt;
    uv_timer_t drain; /* the delay before draining, then the limit on it */
    bool stopping;    /* a signal came: not ready any more */
};

/* Loads the models, listens, serves until SIGTERM or SIGINT has been obeyed. Returns 0 after a
 * clean drain, -1 with an error when it could not start; a drain that runs out of time ends the
 * process with status 1. */
int server_run(const struct options *options, struct error *err);

#endif

/* One event loop: its connections, lanes and compute thread, on a thread of its own. Loops share
 * the models and nothing else. */
#ifndef SERVER_LOOP_H
#define SERVER_LOOP_H

#include "server/api.h"

struct server;

struct loop {
    struct server *server;
    size_t index;       /* among the server's */
    uv_thread_t thread; /* of every loop but the first, which has the process's */
    uv_loop_t uv;
    struct scheduler scheduler;
    struct lanes lanes;
    struct predict predict;
    struct api api;
    struct http *http;
    uv_mutex_t mutex;                     /* guards the next */
    struct request_counts other_requests; /* those that reached no model */
    uv_async_t published;                 /* there is a new catalog */
    uv_async_t drain_asked;
    uv_timer_t drain_limit;
};

/* Listens; serves once it is run. Takes the caller's hold on the catalog. On error nothing is left
 * but what loop_close() takes. */
MUST_CHECK int loop_start(struct loop *loop, struct server *server, size_t index,
                          struct catalog *catalog, struct error *err);

/* Serves until drained. On the loop's own thread. */
void loop_run(struct loop *loop);

/* After loop_start() has failed, or loop_run() returned, or instead of it. */
void loop_stop(struct loop *loop);
void loop_close(struct loop *loop);

#endif

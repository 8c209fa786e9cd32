/* One event loop: its connections, lanes and compute thread, on a thread of its own. */
#ifndef SERVER_LOOP_H
#define SERVER_LOOP_H

#include "server/access_log.h"
#include "server/grpc/grpc.h"
#include "server/models/changes.h"
#include "server/models/loader.h"
#include "server/routes/api.h"
#include "server/routes/live.h"
#include "server/trace.h"

/* What the loops of a server share. All of it outlives them. */
struct loop_shared {
    const struct options *options;
    struct http_limits *limits; /* of connections and bodies */
    struct access *access;
    struct tls *tls;       /* NULL: plain */
    struct loader *loader; /* has the newest catalog */
    struct totals *totals;
    struct state *state; /* where statistics are kept */
    struct trace *trace;
    int given_fd; /* listens already, see http.h; 0: none */
    const atomic_bool *stopping;
    /* A loop's drain has ended; whether every accepted request was answered. On that loop's thread.
     */
    void (*on_drained)(void *context, bool all_answered);
    void *context;
};

/* Where a loop accepts connections. */
struct listener {
    struct loop *loop;
    struct http *http; /* one of both */
    struct grpc *grpc;
    bool is_admin;
};

struct loop {
    const struct loop_shared *shared;
    size_t index;       /* among the server's */
    uv_thread_t thread; /* the first loop runs on the process's own instead */
    uv_loop_t uv;
    struct scheduler scheduler;
    struct lanes lanes;
    struct predict predict;
    struct generations generations;
    struct changes changes;
    struct live live;
    struct api api;
    struct listener main, admin; /* admin.http: NULL unless there is one, of the first loop */
    struct listener rpc;         /* rpc.grpc: NULL unless there is one */
    unsigned draining;           /* listeners that have not drained */
    struct access_log access_log;
    uv_async_t published; /* there is a new catalog */
    uv_work_t first_work;
    uv_async_t drain_asked;
    uv_timer_t drain_limit;
    uv_async_t life_asked; /* for a sign of life, */
    atomic_bool alive;     /* which is this */
};

/* What the first loop binds (0: any) and the others join. */
struct loop_ports {
    uint16_t http, grpc;
};

/* Listens, and serves once it is run. On error nothing is left but what loop_close() takes. */
MUST_CHECK int loop_start(struct loop *loop, const struct loop_shared *shared, size_t index,
                          const struct loop_ports *ports, struct error *err);

/* Whether the loop has turned since this was called last. From any thread. */
bool loop_is_alive(struct loop *loop);

/* Serves until drained. On the loop's own thread. */
void loop_run(struct loop *loop);

/* After loop_start() has failed, or loop_run() returned, or instead of it. */
void loop_stop(struct loop *loop);
void loop_close(struct loop *loop);

/* One loop's share of what all have, and no less than `least`. */
uint64_t loop_share(const struct options *options, uint64_t whole, uint64_t least);

/* Compute threads of one loop. */
unsigned loop_threads(const struct options *options);

/* How models are loaded that loops will serve; without a quarantine. */
struct model_options loop_model_options(const struct options *options);

#endif

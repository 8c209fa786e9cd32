/* The compute thread: runs one piece of a lane's work at a time, with a team, away from the loop.
 *
 * Hand-over is the only crossing between threads. engine_start() gives a busy lane to the compute
 * thread; `on_done` gives it back on the loop thread. In between nobody else touches what it
 * computes with. */
#ifndef SERVER_ENGINE_H
#define SERVER_ENGINE_H

#include <uv.h>

#include "server/lane.h"

struct engine {
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t wake;
    uv_async_t done; /* compute thread -> loop thread */
    struct moed_team *team;
    bool busy; /* loop thread's view: a lane is out */

    /* Under the mutex. */
    struct lane *lane; /* non-NULL: to be run, or run and not yet fetched */
    bool computed, stopping;
    uint64_t compute_ns;

    void (*on_done)(struct lane *lane, uint64_t compute_ns, void *context);
    void *context;
};

/* Starts the thread. `on_done` is called on the loop thread after each piece. */
MUST_CHECK int engine_init(struct engine *engine, uv_loop_t *loop, unsigned threads,
                           void (*on_done)(struct lane *lane, uint64_t compute_ns, void *context),
                           void *context, struct error *err);

/* Stops the thread; the engine must be idle. Its loop handle is gone once the loop has run. */
void engine_close(struct engine *engine);

/* Only when !engine->busy, with a lane that has begun a piece. */
void engine_start(struct engine *engine, struct lane *lane);

#endif

/* The compute thread: runs one piece of a lane's work at a time, with a team, away from the loop.
 *
 * Threads meet only at the hand-over: engine_start() gives a busy lane to the compute thread,
 * `on_done` gives it back on the loop thread. In between only the compute thread touches what the
 * piece uses. */
#ifndef SERVER_ENGINE_H
#define SERVER_ENGINE_H

#include <uv.h>

#include "server/compute/lane.h"

struct engine {
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t wake;
    uv_async_t done; /* compute thread -> loop thread */
    struct moed_team *team;
    bool busy; /* the compute thread has a lane; loop thread only */

    /* Guarded by the mutex: */
    struct lane *lane; /* to be run, or run and not yet fetched; NULL: none */
    bool computed, stopping;
    uint64_t compute_ns;

    void (*on_done)(struct lane *lane, uint64_t compute_ns, void *context);
    void *context;
};

/* Starts the thread. `on_done` is called on the loop thread after each piece. */
MUST_CHECK int engine_init(struct engine *engine, uv_loop_t *loop, unsigned threads,
                           void (*on_done)(struct lane *lane, uint64_t compute_ns, void *context),
                           void *context, struct error *err);

/* Stops the thread; the engine must be idle. Its handle is closed when the loop has run once more.
 */
void engine_close(struct engine *engine);

/* Needs !engine->busy, and a lane that has begun a piece. */
void engine_start(struct engine *engine, struct lane *lane);

#endif

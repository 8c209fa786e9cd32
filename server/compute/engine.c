/* One slot guarded by a mutex: a lane goes in, wakes the thread, and comes back by an async handle.
 */
#include "server/compute/engine.h"

#include "core/memory.h"

static void thread_main(void *argument)
{
    struct engine *engine = argument;
    uv_mutex_lock(&engine->mutex);
    for (;;) {
        while (!engine->stopping && (!engine->lane || engine->computed))
            uv_cond_wait(&engine->wake, &engine->mutex);
        if (engine->stopping)
            break;
        struct lane *lane = engine->lane;
        uv_mutex_unlock(&engine->mutex);
        uint64_t began = uv_hrtime();
        lane->kind->run(lane, engine->team);
        lane->ended_ns = uv_hrtime();
        uv_mutex_lock(&engine->mutex);
        engine->compute_ns = lane->ended_ns - began;
        engine->computed = true;
        uv_async_send(&engine->done);
    }
    uv_mutex_unlock(&engine->mutex);
}

static void on_async(uv_async_t *async)
{
    struct engine *engine = async->data;
    uv_mutex_lock(&engine->mutex);
    struct lane *lane = engine->computed ? engine->lane : NULL;
    uint64_t compute_ns = engine->compute_ns;
    if (lane) {
        engine->lane = NULL;
        engine->computed = false;
    }
    uv_mutex_unlock(&engine->mutex);
    if (!lane)
        return;
    engine->busy = false;
    engine->on_done(lane, compute_ns, engine->context);
}

static int cannot_start(struct error *err, int status)
{
    return error_set(err, ERROR_INTERNAL, "cannot start the compute thread: %s",
                     uv_strerror(status));
}

int engine_init(struct engine *engine, uv_loop_t *loop, unsigned threads,
                void (*on_done)(struct lane *lane, uint64_t compute_ns, void *context),
                void *context, struct error *err)
{
    *engine = (struct engine){.on_done = on_done, .context = context};
    int status = uv_async_init(loop, &engine->done, on_async);
    if (status != 0)
        return cannot_start(err, status);
    engine->done.data = engine;
    /* The handle must not keep the loop alive. */
    uv_unref((uv_handle_t *)&engine->done);
    if (uv_mutex_init(&engine->mutex) != 0 || uv_cond_init(&engine->wake) != 0)
        out_of_memory();
    engine->team = moed_team_new(threads);
    status = uv_thread_create(&engine->thread, thread_main, engine);
    if (status == 0)
        return 0;
    uv_close((uv_handle_t *)&engine->done, NULL);
    uv_cond_destroy(&engine->wake);
    uv_mutex_destroy(&engine->mutex);
    moed_team_free(engine->team);
    return cannot_start(err, status);
}

void engine_close(struct engine *engine)
{
    uv_mutex_lock(&engine->mutex);
    engine->stopping = true;
    uv_cond_signal(&engine->wake);
    uv_mutex_unlock(&engine->mutex);
    uv_thread_join(&engine->thread);
    uv_close((uv_handle_t *)&engine->done, NULL);
    uv_cond_destroy(&engine->wake);
    uv_mutex_destroy(&engine->mutex);
    moed_team_free(engine->team);
}

void engine_start(struct engine *engine, struct lane *lane)
{
    engine->busy = true;
    uv_mutex_lock(&engine->mutex);
    engine->lane = lane;
    uv_cond_signal(&engine->wake);
    uv_mutex_unlock(&engine->mutex);
}

/* The compute thread; see engine.h. */
#include "server/engine.h"

static void run(struct engine *engine, struct served *served, struct batch *batch)
{
    const uint64_t began = uv_hrtime();
    served_forward(served, engine->team, batch);
    engine->compute_ns = uv_hrtime() - began;
}

static void thread_main(void *argument)
{
    struct engine *engine = argument;
    uv_mutex_lock(&engine->mutex);
    for (;;) {
        while (!engine->stopping && (!engine->batch || engine->computed))
            uv_cond_wait(&engine->wake, &engine->mutex);
        if (engine->stopping)
            break;
        struct served *served = engine->served;
        struct batch *batch = engine->batch;
        uv_mutex_unlock(&engine->mutex);
        run(engine, served, batch);
        uv_mutex_lock(&engine->mutex);
        engine->computed = true;
        uv_async_send(&engine->done);
    }
    uv_mutex_unlock(&engine->mutex);
}

static void on_async(uv_async_t *async)
{
    struct engine *engine = async->data;
    uv_mutex_lock(&engine->mutex);
    struct served *served = engine->served;
    struct batch *batch = engine->computed ? engine->batch : NULL;
    const uint64_t compute_ns = engine->compute_ns;
    if (batch) {
        engine->batch = NULL;
        engine->computed = false;
    }
    uv_mutex_unlock(&engine->mutex);
    if (!batch)
        return;
    engine->busy = false;
    engine->on_done(served, batch, compute_ns, engine->context);
}

int engine_init(struct engine *engine, uv_loop_t *loop, unsigned threads,
                void (*on_done)(struct served *served, struct batch *batch, uint64_t compute_ns,
                                void *context),
                void *context, struct error *err)
{
    *engine = (struct engine){.on_done = on_done, .context = context};
    engine->team = moed_team_new(threads);
    uv_mutex_init(&engine->mutex);
    uv_cond_init(&engine->wake);
    uv_async_init(loop, &engine->done, on_async);
    engine->done.data = engine;
    /* Waiting for a batch is no reason to keep the loop alive. */
    uv_unref((uv_handle_t *)&engine->done);
    int status = uv_thread_create(&engine->thread, thread_main, engine);
    if (status == 0)
        return 0;
    uv_close((uv_handle_t *)&engine->done, NULL);
    uv_cond_destroy(&engine->wake);
    uv_mutex_destroy(&engine->mutex);
    moed_team_free(engine->team);
    return error_set(err, ERROR_INTERNAL, "cannot start the compute thread: %s",
                     uv_strerror(status));
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

void engine_start(struct engine *engine, struct served *served, struct batch *batch)
{
    engine->busy = true;
    uv_mutex_lock(&engine->mutex);
    engine->served = served;
    engine->batch = batch;
    uv_cond_signal(&engine->wake);
    uv_mutex_unlock(&engine->mutex);
}

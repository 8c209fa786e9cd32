/* A change outlives its answer if it is answered early: the loader still has it. */
#include "server/models/changes.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"

/* Clients that may wait at a time: the loader takes its time, and each holds a connection. */
enum { MAX_WAITING = 64 };

struct change {
    struct loader_change asked;
    struct changes *changes;
    struct exchange *exchange; /* whose owner is this; NULL: answered */
    TAILQ_ENTRY(change) waiting, finished;
};

static void reply(struct exchange *exchange, const struct error *err)
{
    struct buffer body;
    if (err->code != ERROR_NONE) {
        exchange_reply_error(exchange, err);
        return;
    }
    buffer_init(&body, 16);
    buffer_text(&body, "{}");
    exchange_reply(exchange, 200, NULL, &body);
    buffer_close(&body);
}

static void answer(struct change *change, const struct error *err)
{
    struct exchange *exchange = change->exchange;
    if (!exchange)
        return;
    TAILQ_REMOVE(&change->changes->waiting, change, waiting);
    change->changes->count--;
    change->exchange = NULL;
    exchange->owner = NULL;
    reply(exchange, err);
}

/* On the loader's thread. */
static void on_done(struct loader_change *asked)
{
    struct change *change = (struct change *)(void *)asked;
    struct changes *changes = change->changes;
    uv_mutex_lock(&changes->mutex);
    TAILQ_INSERT_TAIL(&changes->finished, change, finished);
    uv_mutex_unlock(&changes->mutex);
    uv_async_send(&changes->finished_some);
}

static struct change *take_finished(struct changes *changes)
{
    uv_mutex_lock(&changes->mutex);
    struct change *change = TAILQ_FIRST(&changes->finished);
    if (change)
        TAILQ_REMOVE(&changes->finished, change, finished);
    uv_mutex_unlock(&changes->mutex);
    return change;
}

static void on_finished_some(uv_async_t *finished_some)
{
    for (struct change *change; (change = take_finished(finished_some->data)); free(change))
        answer(change, &change->asked.err);
}

void changes_submit(struct changes *changes, struct exchange *exchange, const char *model,
                    bool unload)
{
    struct error err = ERROR_INIT;
    if (changes->count == MAX_WAITING) {
        error_set(&err, ERROR_OVERLOADED, "%d changes of the repository wait already", MAX_WAITING);
        exchange_reply_error(exchange, &err);
        return;
    }
    struct change *change = xcalloc(1, sizeof *change);
    change->asked.unload = unload;
    change->asked.on_done = on_done;
    snprintf(change->asked.name, sizeof change->asked.name, "%s", model);
    change->changes = changes;
    change->exchange = exchange;
    exchange->owner = change;
    TAILQ_INSERT_TAIL(&changes->waiting, change, waiting);
    changes->count++;
    loader_submit(changes->loader, &change->asked);
}

void changes_refuse(struct changes *changes)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_UNAVAILABLE, "the server is stopping");
    for (struct change *change; (change = TAILQ_FIRST(&changes->waiting));)
        answer(change, &err);
}

int changes_init(struct changes *changes, uv_loop_t *loop, struct loader *loader, struct error *err)
{
    changes->loader = loader;
    TAILQ_INIT(&changes->waiting);
    TAILQ_INIT(&changes->finished);
    if (uv_mutex_init(&changes->mutex) != 0)
        out_of_memory();
    changes->finished_some.data = changes;
    int status = uv_async_init(loop, &changes->finished_some, on_finished_some);
    if (status == 0)
        return 0;
    uv_mutex_destroy(&changes->mutex);
    changes->loader = NULL;
    return error_set(err, ERROR_INTERNAL, "cannot start an event loop: %s", uv_strerror(status));
}

void changes_close(struct changes *changes)
{
    if (!changes->loader)
        return;
    for (struct change *change; (change = take_finished(changes));)
        free(change);
    uv_mutex_destroy(&changes->mutex);
}

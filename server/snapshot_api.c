/* The file is written on one of libuv's threads, for a disk may take long; the answer is made on
 * the loop. */
#include "server/snapshot_api.h"

#include <stdlib.h>

#include "core/memory.h"
#include "server/describe.h"
#include "server/live.h"
#include "server/state.h"

struct saving {
    uv_work_t work;
    struct state *state;
    struct exchange *exchange; /* holds the model */
    struct error err;
    bool gone; /* the client has left */
};

static void work(uv_work_t *work)
{
    struct saving *saving = work->data;
    if (state_save(saving->state, saving->exchange->model, &saving->err) != 0)
        error_prefix(&saving->err, "the snapshot was not written");
}

static void reply(struct exchange *exchange, const struct error *err)
{
    struct buffer body;
    if (err->code != ERROR_NONE) {
        exchange_reply_error(exchange, err);
        return;
    }
    describe_new(&body);
    describe_append_snapshot(exchange->model, &body);
    describe_reply(exchange, 200, NULL, &body);
}

static void after_work(uv_work_t *work, int status)
{
    (void)status; /* nobody cancels it */
    struct saving *saving = work->data;
    struct exchange *exchange = saving->exchange;
    exchange->owner = NULL;
    exchange->on_disconnect = NULL;
    if (saving->gone) {
        saving->err = (struct error)ERROR_INIT;
        error_set(&saving->err, ERROR_DISCONNECTED, "the client went away");
    }
    reply(exchange, &saving->err);
    free(saving);
}

static void on_disconnect(struct exchange *exchange)
{
    struct saving *saving = exchange->owner;
    saving->gone = true; /* the thread may be writing `err` */
}

void snapshot_take(const struct api *api, struct exchange *exchange, const struct target *target)
{
    static const char *const NONE[] = {NULL};
    struct error err = ERROR_INIT;
    (void)target;
    if (exchange_query_names(exchange, NONE, &err) != 0 || !api->state->directory) {
        reply(exchange, &err);
        return;
    }
    struct saving *saving = xcalloc(1, sizeof *saving);
    *saving = (struct saving){.state = api->state, .exchange = exchange};
    saving->work.data = saving;
    exchange->owner = saving;
    exchange->on_disconnect = on_disconnect;
    if (uv_queue_work(api->live->loop, &saving->work, work, after_work) != 0)
        abort(); /* fails only without a function to run */
}

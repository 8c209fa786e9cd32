/* A client that leaves is noted, and what is made for it thrown away: the thread may still have the
 * exchange. */
#include "server/background.h"

#include <stdlib.h>

#include "core/memory.h"
#include "server/routes/describe.h"

struct background {
    uv_work_t work;
    struct exchange *exchange;
    background_make *make;
    void *context;
    struct buffer body;
    struct error err;
    bool gone; /* the client has left */
};

static void work(uv_work_t *work)
{
    struct background *background = work->data;
    background->make(background->exchange, background->context, &background->body,
                     &background->err);
}

static void after_work(uv_work_t *work, int status)
{
    (void)status; /* nobody cancels it */
    struct background *background = work->data;
    struct exchange *exchange = background->exchange;
    exchange->owner = NULL;
    exchange->on_disconnect = NULL;
    if (background->gone) {
        background->err = (struct error)ERROR_INIT;
        error_set(&background->err, ERROR_DISCONNECTED, "the client went away");
    }
    if (background->err.code != ERROR_NONE) {
        buffer_close(&background->body);
        exchange_reply_error(exchange, &background->err);
    } else {
        describe_reply(exchange, 200, NULL, &background->body);
    }
    free(background->context);
    free(background);
}

static void on_disconnect(struct exchange *exchange)
{
    struct background *background = exchange->owner;
    background->gone = true; /* the thread may be writing `err` */
}

void background_answer(uv_loop_t *loop, struct exchange *exchange, background_make *make,
                       void *context)
{
    struct background *background = xcalloc(1, sizeof *background);
    *background = (struct background){.exchange = exchange, .make = make, .context = context};
    describe_new(&background->body);
    background->work.data = background;
    exchange->owner = background;
    exchange->on_disconnect = on_disconnect;
    if (uv_queue_work(loop, &background->work, work, after_work) != 0)
        abort(); /* fails only without a function to run */
}

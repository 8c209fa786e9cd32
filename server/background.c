/* A client that leaves is noted, and what is made for it thrown away. */
#include "server/background.h"

#include <stdlib.h>

#include "core/memory.h"

static void on_work(uv_work_t *request)
{
    struct background *background = request->data;
    background->work(background);
}

static void on_end(uv_work_t *request, int status)
{
    (void)status; /* nobody cancels it */
    struct background *background = request->data;
    background->exchange->owner = NULL;
    background->exchange->on_disconnect = NULL;
    if (background->gone) {
        background->err = (struct error)ERROR_INIT;
        error_set(&background->err, ERROR_DISCONNECTED, "the client went away");
    }
    background->end(background);
}

static void on_disconnect(struct exchange *exchange)
{
    struct background *background = exchange->owner;
    background->gone = true; /* the thread may be writing `err` */
}

void background_run(uv_loop_t *loop, struct background *background)
{
    background->request.data = background;
    background->exchange->owner = background;
    background->exchange->on_disconnect = on_disconnect;
    if (uv_queue_work(loop, &background->request, on_work, on_end) != 0)
        abort(); /* fails only without a function to run */
}

/* ---- answers ---- */

/* The largest text or document; what a request can make longer is bounded before. */
enum { MAX_ANSWER_BYTES = 256 << 20 };

struct answer {
    struct background background;
    background_make *make;
    void *context;
    void (*release)(void *context);
    struct buffer body;
};

static void make_answer(struct background *background)
{
    struct answer *answer = (struct answer *)background;
    if (answer->make(background->exchange, answer->context, &answer->body, &background->err) != 0)
        error_set(&background->err, ERROR_UNAVAILABLE, "no memory for the answer");
}

static void end_answer(struct background *background)
{
    struct answer *answer = (struct answer *)background;
    if (background->err.code != ERROR_NONE)
        exchange_reply_error(background->exchange, &background->err);
    else
        exchange_reply(background->exchange, 200, NULL, &answer->body);
    buffer_close(&answer->body);
    if (answer->release)
        answer->release(answer->context);
    free(answer);
}

void background_answer(uv_loop_t *loop, struct exchange *exchange, background_make *make,
                       void *context, void (*release)(void *context))
{
    struct answer *answer = xcalloc(1, sizeof *answer);
    *answer = (struct answer){.background = {exchange, .work = make_answer, .end = end_answer},
                              .make = make,
                              .context = context,
                              .release = release};
    buffer_init(&answer->body, MAX_ANSWER_BYTES);
    if (loop) {
        background_run(loop, &answer->background);
        return;
    }
    make_answer(&answer->background);
    end_answer(&answer->background);
}

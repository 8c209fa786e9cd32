/* libuv has four threads, so that at most four bodies of max_body_bytes are there beside those that
 * are counted. */
#include "server/routes/expand.h"

#include <stdlib.h>

#include "core/memory.h"

struct expansion {
    uv_work_t work;
    const struct api *api;
    struct exchange *exchange;
    enum coding coding;
    void (*then)(const struct api *api, struct exchange *exchange, struct error *err);
    struct buffer body;
    struct error err;
    bool gone; /* the client has left */
};

static void work(uv_work_t *work)
{
    struct expansion *expansion = work->data;
    const struct exchange *exchange = expansion->exchange;
    if (coding_expand(expansion->coding, exchange->body ? exchange->body : "",
                      exchange->body_length, &expansion->body, &expansion->err) != 0)
        buffer_close(&expansion->body);
}

static void on_disconnect(struct exchange *exchange)
{
    struct expansion *expansion = exchange->owner;
    expansion->gone = true; /* the thread may be writing `err` */
}

static void after_work(uv_work_t *work, int status)
{
    (void)status; /* nobody cancels it */
    struct expansion *expansion = work->data;
    struct exchange *exchange = expansion->exchange;
    exchange->owner = NULL;
    exchange->on_disconnect = NULL;
    if (expansion->gone) {
        expansion->err = (struct error)ERROR_INIT;
        error_set(&expansion->err, ERROR_DISCONNECTED, "the client went away");
    }
    if (expansion->err.code == ERROR_NONE &&
        exchange_replace_body(exchange, &expansion->body, &expansion->err) != 0)
        buffer_close(&expansion->body);
    expansion->then(expansion->api, exchange, &expansion->err);
    buffer_close(&expansion->body);
    free(expansion);
}

void expand_body(const struct api *api, struct exchange *exchange, enum coding coding,
                 void (*then)(const struct api *api, struct exchange *exchange, struct error *err))
{
    struct expansion *expansion = xcalloc(1, sizeof *expansion);
    *expansion = (struct expansion){
        .api = api, .exchange = exchange, .coding = coding, .then = then, .err = ERROR_INIT};
    expansion->work.data = expansion;
    buffer_init(&expansion->body, api->options->max_body_bytes);
    exchange->owner = expansion;
    exchange->on_disconnect = on_disconnect;
    if (uv_queue_work(api->predict->deadlines.loop, &expansion->work, work, after_work) != 0)
        abort(); /* fails only without a function to run */
}

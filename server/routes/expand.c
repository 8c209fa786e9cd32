/* libuv has four threads, so that at most four bodies of max_body_bytes are there beside those that
 * are counted. */
#include "server/routes/expand.h"

#include <stdlib.h>

#include "core/memory.h"
#include "server/background.h"

struct expansion {
    struct background background;
    const struct api *api;
    enum coding coding;
    void (*then)(const struct api *api, struct exchange *exchange, struct error *err);
    struct buffer body;
};

static void expand(struct background *background)
{
    struct expansion *expansion = (struct expansion *)background;
    const struct exchange *exchange = background->exchange;
    if (coding_expand(expansion->coding, exchange->body ? exchange->body : "",
                      exchange->body_length, &expansion->body, &background->err) != 0)
        buffer_close(&expansion->body);
}

static void end(struct background *background)
{
    struct expansion *expansion = (struct expansion *)background;
    struct error *err = &background->err;
    if (err->code == ERROR_NONE &&
        exchange_replace_body(background->exchange, &expansion->body, err) != 0)
        buffer_close(&expansion->body);
    expansion->then(expansion->api, background->exchange, err);
    buffer_close(&expansion->body);
    free(expansion);
}

void expand_body(const struct api *api, struct exchange *exchange, enum coding coding,
                 void (*then)(const struct api *api, struct exchange *exchange, struct error *err))
{
    struct expansion *expansion = xcalloc(1, sizeof *expansion);
    *expansion = (struct expansion){.background = {exchange, .work = expand, .end = end},
                                    .api = api,
                                    .coding = coding,
                                    .then = then};
    buffer_init(&expansion->body, api->options->max_body_bytes);
    background_run(api->predict->deadlines.loop, &expansion->background);
}

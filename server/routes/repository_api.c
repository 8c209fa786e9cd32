/* The index is of the catalog that the loop has, so that it is answered at once also while a model
 * is being loaded. */
#include "server/routes/repository_api.h"

#include <string.h>

#include "proto/oip_repository.h"

enum { MAX_INDEX_BYTES = 64 << 20 };

static void append_entries(const struct catalog *catalog, bool ready_only, struct buffer *body)
{
    bool any = false;
    for (size_t i = 0; i < catalog->status_count; i++) {
        const struct model_status *status = &catalog->statuses[i];
        if (ready_only && status->state != MODEL_READY)
            continue;
        buffer_text(body, any ? "," : "");
        oip_append_index_entry(body, status->name, status->version, model_state_word(status->state),
                               status->reason);
        any = true;
    }
}

void repository_api_index(const struct api *api, struct exchange *exchange,
                          const struct target *target)
{
    (void)target;
    struct error err = ERROR_INIT;
    bool ready_only;
    if (oip_decode_index(exchange->body, exchange->body_length, &ready_only, &err) != 0) {
        exchange_reply_error(exchange, &err);
        return;
    }
    struct buffer body;
    buffer_init(&body, MAX_INDEX_BYTES);
    buffer_text(&body, "[");
    append_entries(api->lanes->catalog, ready_only, &body);
    buffer_text(&body, "]");
    exchange_reply(exchange, 200, NULL, &body);
    buffer_close(&body);
}

static void change(const struct api *api, struct exchange *exchange, const struct target *target,
                   bool unload)
{
    struct error err = ERROR_INIT;
    if (strcmp(api->options->model_control, "explicit") != 0)
        error_set(&err, ERROR_INVALID,
                  "clients load and unload models with --model-control explicit only; it is %s",
                  api->options->model_control);
    else if (*api->stopping)
        error_set(&err, ERROR_UNAVAILABLE, "the server is stopping");
    if (err.code != ERROR_NONE ||
        oip_decode_change(exchange->body, exchange->body_length, &err) != 0)
        exchange_reply_error(exchange, &err);
    else
        changes_submit(api->changes, exchange, target->name, unload);
}

void repository_api_load(const struct api *api, struct exchange *exchange,
                         const struct target *target)
{
    change(api, exchange, target, false);
}

void repository_api_unload(const struct api *api, struct exchange *exchange,
                           const struct target *target)
{
    change(api, exchange, target, true);
}

/* A change holds at once. The file is written on one of libuv's threads, for a disk may take long,
 * and the answer says whether it was. */
#include "server/routes/quarantine_api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "proto/json.h"
#include "server/log.h"
#include "server/routes/describe.h"
#include "server/routes/live.h"
#include "server/statistics/quarantine.h"

struct saving {
    uv_work_t work;
    struct exchange *exchange; /* holds the model */
    char *layer;
    struct error err;
    bool gone; /* the client has left */
};

static void work(uv_work_t *work)
{
    struct saving *saving = work->data;
    if (quarantine_save(saving->exchange->model->quarantine, &saving->err) != 0)
        return; /* the answer says so */
}

/* {"layer", "quarantine": [...], "kept"}; kept: after a restart, too. */
static void append_answer(const struct model *model, const char *layer, bool kept,
                          struct buffer *body)
{
    size_t gate = 0;
    while (strcmp(model->info->gates[gate].name, layer) != 0)
        gate++;
    buffer_text(body, "{\"layer\":");
    json_append_string(body, layer);
    char *list = quarantine_text(model->quarantine, model, gate);
    buffer_text(body, ",\"quarantine\":");
    buffer_text(body, list);
    buffer_format(body, ",\"kept\":%s}", kept ? "true" : "false");
    free(list);
}

static void after_work(uv_work_t *work, int status)
{
    (void)status; /* nobody cancels it */
    struct saving *saving = work->data;
    struct exchange *exchange = saving->exchange;
    const bool kept = saving->err.code == ERROR_NONE;
    struct buffer body;
    exchange->owner = NULL;
    exchange->on_disconnect = NULL;
    if (!kept)
        log_message(LOG_WARNING, "quarantine_not_kept", "%s: forgotten at the next start",
                    saving->err.text);
    if (saving->gone) {
        struct error err = ERROR_INIT;
        error_set(&err, ERROR_DISCONNECTED, "the client went away");
        exchange_reply_error(exchange, &err);
    } else {
        describe_new(&body);
        append_answer(exchange->model, saving->layer, kept, &body);
        describe_reply(exchange, 200, NULL, &body);
    }
    free(saving->layer);
    free(saving);
}

static void on_disconnect(struct exchange *exchange)
{
    struct saving *saving = exchange->owner;
    saving->gone = true;
}

static void save(const struct api *api, struct exchange *exchange, const char *layer)
{
    struct saving *saving = xcalloc(1, sizeof *saving);
    *saving = (struct saving){.exchange = exchange, .layer = xstrdup(layer)};
    saving->work.data = saving;
    exchange->owner = saving;
    exchange->on_disconnect = on_disconnect;
    if (uv_queue_work(api->live->loop, &saving->work, work, after_work) != 0)
        abort(); /* fails only without a function to run */
}

/* Who, when, by which request. */
static void sign(struct quarantine_entry *entry, const struct exchange *exchange)
{
    char by[sizeof exchange->token_name + sizeof exchange->client + 8];
    snprintf(by, sizeof by, "%s%s%s", exchange->token_name, *exchange->token_name ? " at " : "",
             exchange->client);
    entry->by = xstrdup(by);
    entry->request_id = xstrdup(exchange->request_id);
    entry->since = (uint64_t)time(NULL);
}

static void change(const struct api *api, struct exchange *exchange, const struct target *target,
                   bool in)
{
    static const char *const NONE[] = {NULL};
    struct error err = ERROR_INIT;
    struct quarantine_entry entry;
    const struct model *model = target->model;
    if (exchange_query_names(exchange, NONE, &err) != 0 ||
        quarantine_read_request(exchange->body ? exchange->body : "", exchange->body_length, &entry,
                                &err) != 0) {
        exchange_reply_error(exchange, &err);
        return;
    }
    const size_t expert = entry.expert;
    char *layer = xstrdup(entry.layer);
    if (in)
        sign(&entry, exchange);
    int result = in ? quarantine_add(model->quarantine, model, &entry, &err)
                    : quarantine_remove(model->quarantine, model, &entry, &err);
    quarantine_entry_close(&entry);
    if (result == 0) {
        log_message(LOG_WARNING, "quarantine", "%s version %s: expert %zu of %s is %s quarantine",
                    model->name, model->version, expert, layer, in ? "in" : "no longer in");
        save(api, exchange, layer);
    } else {
        exchange_reply_error(exchange, &err);
    }
    free(layer);
}

void quarantine_put_in(const struct api *api, struct exchange *exchange,
                       const struct target *target)
{
    change(api, exchange, target, true);
}

void quarantine_let_out(const struct api *api, struct exchange *exchange,
                        const struct target *target)
{
    change(api, exchange, target, false);
}

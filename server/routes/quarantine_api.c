/* A change holds at once. The file is written on one of libuv's threads, for a disk may take long,
 * and the answer says whether it was. */
#include "server/routes/quarantine_api.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "proto/json.h"
#include "server/background.h"
#include "server/log.h"
#include "server/routes/live.h"
#include "server/statistics/quarantine.h"

/* {"layer", "quarantine": [...], "kept"}; kept: after a restart, too. */
static int save(const struct exchange *exchange, void *context, struct buffer *body,
                struct error *err)
{
    const struct model *model = exchange->model;
    const char *layer = context;
    struct error unkept = ERROR_INIT;
    size_t gate = 0;
    (void)err;
    if (quarantine_save(model->quarantine, &unkept) != 0)
        log_message(LOG_WARNING, "quarantine_not_kept", "%s: forgotten at the next start",
                    unkept.text);
    while (strcmp(model->info->gates[gate].name, layer) != 0)
        gate++;
    buffer_text(body, "{\"layer\":");
    json_append_string(body, layer);
    char *list = quarantine_text(model->quarantine, model, gate);
    buffer_text(body, ",\"quarantine\":");
    buffer_text(body, list);
    buffer_format(body, ",\"kept\":%s}", unkept.code == ERROR_NONE ? "true" : "false");
    free(list);
    return 0;
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
        background_answer(api->live->loop, exchange, save, layer, free);
    } else {
        exchange_reply_error(exchange, &err);
        free(layer);
    }
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

/* The read-only endpoints; see describe.h. Loop thread only, like everything they read. */
#include "server/routes/describe.h"

#include <stdlib.h>

#include "core/memory.h"
#include "proto/json.h"
#include "proto/oip.h"
#include "proto/oip_repository.h"
#include "proto/v1.h"
#include "server/statistics/metrics.h"

/* A page of metrics or statistics: its size is bounded by the models, this only catches a bug. */
enum { MAX_DOCUMENT_BYTES = 64 << 20 };

void describe_reply(struct exchange *exchange, int status, const char *content_type,
                    struct buffer *body)
{
    struct error err = ERROR_INIT;
    if (body->failed) {
        error_set(&err, ERROR_INTERNAL, "the document exceeds %d bytes", MAX_DOCUMENT_BYTES);
        exchange_reply_error(exchange, &err);
    } else {
        exchange_reply(exchange, status, content_type, body);
    }
    buffer_close(body);
}

void describe_new(struct buffer *body)
{
    buffer_init(body, MAX_DOCUMENT_BYTES);
}

void describe_server(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)api, (void)target;
    struct buffer body;
    describe_new(&body);
    oip_server_metadata(MOED_VERSION, &body);
    describe_reply(exchange, 200, NULL, &body);
}

void describe_live(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)api, (void)target;
    struct buffer body;
    describe_new(&body);
    buffer_text(&body, "{\"live\":true}");
    describe_reply(exchange, 200, NULL, &body);
}

/* What KServe's own liveness probe asks for. */
void describe_alive(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)api, (void)target;
    struct buffer body;
    describe_new(&body);
    buffer_text(&body, "{\"status\":\"alive\"}");
    describe_reply(exchange, 200, NULL, &body);
}

/* ,"key":["name version", ...] of what is in a state; nothing when nothing is. */
static void append_in_state(const struct catalog *catalog, const char *key, enum model_state state,
                            struct buffer *body)
{
    bool any = false;
    for (size_t i = 0; i < catalog->status_count; i++) {
        const struct model_status *status = &catalog->statuses[i];
        if (status->state != state || (state == MODEL_UNAVAILABLE && !status->failed))
            continue;
        if (!any)
            buffer_format(body, ",\"%s\":[", key);
        buffer_text(body, any ? ",\"" : "\"");
        json_append_escaped(body, status->name);
        buffer_format(body, "%s%s\"", *status->version ? " " : "", status->version);
        any = true;
    }
    buffer_text(body, any ? "]" : "");
}

/* Not ready until all models have been looked at, and from the moment a stop is asked for, so that
 * a load balancer looks elsewhere while what was accepted is finished. */
void describe_ready(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)target;
    const struct catalog *catalog = api->lanes->catalog;
    bool ready = !*api->stopping && catalog_is_ready(catalog);
    struct buffer body;
    describe_new(&body);
    buffer_text(&body, ready ? "{\"ready\":true" : "{\"ready\":false");
    append_in_state(catalog, "loading", MODEL_LOADING, &body);
    append_in_state(catalog, "unavailable", MODEL_UNAVAILABLE, &body);
    buffer_text(&body, "}");
    describe_reply(exchange, ready ? 200 : 503, NULL, &body);
}

const char **describe_versions(const struct api *api, const struct target *target, size_t *count)
{
    const struct catalog *catalog = api->lanes->catalog;
    size_t first = 0, last = 0;
    if (target->model)
        catalog_versions(catalog, target->model->name, &first, &last);
    const char **versions = xcalloc(last - first + 1, sizeof *versions);
    for (*count = 0; *count < last - first; ++*count)
        versions[*count] = catalog->models[first + *count]->version;
    if (target->model && target->version) {
        versions[0] = target->model->version;
        *count = 1;
    }
    return versions;
}

void describe_model(const struct api *api, struct exchange *exchange, const struct target *target)
{
    size_t count;
    const char **versions = describe_versions(api, target, &count);
    struct buffer body;
    describe_new(&body);
    oip_model_metadata(&target->model->signature, versions, count, &body);
    free(versions);
    describe_reply(exchange, 200, NULL, &body);
}

void describe_model_ready(const struct api *api, struct exchange *exchange,
                          const struct target *target)
{
    bool ready = !*api->stopping && target->model;
    struct buffer body;
    describe_new(&body);
    v1_model_ready(target->name, ready, &body);
    describe_reply(exchange, ready ? 200 : 503, NULL, &body);
}

void describe_config(const struct api *api, struct exchange *exchange, const struct target *target)
{
    struct buffer body;
    const struct model *model = target->model;
    describe_new(&body);
    oip_model_config(
        &model->signature, model_max_request_rows(model, api->options->max_request_rows),
        serving_limit(model->limits.max_queue_delay_us, api->options->max_queue_delay_us), &body);
    describe_reply(exchange, 200, NULL, &body);
}

void describe_v1_model(const struct api *api, struct exchange *exchange,
                       const struct target *target)
{
    struct buffer body;
    describe_new(&body);
    size_t count;
    const char **versions = describe_versions(api, target, &count);
    v1_model_status(target->name, !*api->stopping && target->model, versions, count, &body);
    free(versions);
    describe_reply(exchange, target->model ? 200 : 503, NULL, &body);
}

void describe_metrics(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)target;
    bool openmetrics = prometheus_wants_openmetrics(exchange_header_in(exchange, "Accept"));
    struct buffer body;
    describe_new(&body);
    metrics_page(api, openmetrics, &body);
    describe_reply(exchange, 200, prometheus_content_type(openmetrics), &body);
}

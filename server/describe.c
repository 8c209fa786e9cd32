/* The read-only endpoints; see describe.h. Loop thread only, like everything they read. */
#include "server/describe.h"

#include <stdlib.h>

#include "proto/json.h"
#include "proto/oip.h"
#include "proto/v1.h"
#include "server/census.h"
#include "server/metrics.h"
#include "server/server.h"

/* A page of metrics or statistics: its size is bounded by the models, this only catches a bug. */
enum { MAX_DOCUMENT_BYTES = 64 << 20 };

static void reply(struct exchange *exchange, int status, const char *content_type,
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

struct served *describe_find(const struct server *server, struct exchange *exchange,
                             const struct route_params *params, struct error *err)
{
    const char *version = *params->version ? params->version : NULL;
    struct served *served = registry_find(&server->registry, params->model, version, err);
    if (served) {
        exchange->log_model = served->name;
        exchange->log_version = served->version;
    }
    return served;
}

/* The model, or NULL after having answered 404. */
static struct served *find_or_reply(struct server *server, struct exchange *exchange,
                                    const struct route_params *params)
{
    struct error err = ERROR_INIT;
    struct served *served = describe_find(server, exchange, params, &err);
    if (!served)
        exchange_reply_error(exchange, &err);
    return served;
}

DESCRIBE(server)
{
    (void)server, (void)params;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    oip_server_metadata(MOED_VERSION, &body);
    reply(exchange, 200, NULL, &body);
}

DESCRIBE(live)
{
    (void)server, (void)params;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    buffer_text(&body, "{\"live\":true}");
    reply(exchange, 200, NULL, &body);
}

/* What KServe's own liveness probe asks for. */
DESCRIBE(alive)
{
    (void)server, (void)params;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    buffer_text(&body, "{\"status\":\"alive\"}");
    reply(exchange, 200, NULL, &body);
}

/* Not ready from the moment a stop is asked for, so that a load balancer looks elsewhere while what
 * was accepted is finished. */
DESCRIBE(ready)
{
    (void)params;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    buffer_text(&body, server->process->stopping ? "{\"ready\":false}" : "{\"ready\":true}");
    reply(exchange, server->process->stopping ? 503 : 200, NULL, &body);
}

DESCRIBE(model)
{
    struct served *served = find_or_reply(server, exchange, params);
    if (!served)
        return;
    const struct registry *registry = &server->registry;
    size_t first, last;
    registry_versions(registry, served, &first, &last);
    const char **versions = xcalloc(last - first, sizeof *versions);
    for (size_t i = first; i < last; i++)
        versions[i - first] = registry->items[i]->version;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    if (*params->version)
        oip_model_metadata(&served->signature, (const char *const[]){served->version}, 1, &body);
    else
        oip_model_metadata(&served->signature, versions, last - first, &body);
    free(versions);
    reply(exchange, 200, NULL, &body);
}

DESCRIBE(model_ready)
{
    struct served *served = find_or_reply(server, exchange, params);
    if (!served)
        return;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    buffer_text(&body, "{\"name\":");
    json_append_string(&body, served->name);
    buffer_text(&body, server->process->stopping ? ",\"ready\":false}" : ",\"ready\":true}");
    reply(exchange, server->process->stopping ? 503 : 200, NULL, &body);
}

DESCRIBE(config)
{
    struct served *served = find_or_reply(server, exchange, params);
    if (!served)
        return;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    oip_model_config(&served->signature, server->options->max_request_rows,
                     server->options->max_queue_delay_us, &body);
    reply(exchange, 200, NULL, &body);
}

DESCRIBE(routing)
{
    struct served *served = find_or_reply(server, exchange, params);
    if (!served)
        return;
    const size_t count = served->info->gate_count;
    struct routing_layer *layers = xcalloc(count, sizeof *layers);
    struct stats total;
    census_of_model(server, served, &total);
    for (size_t i = 0; i < count; i++)
        layers[i] = stats_routing(&total, i);
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    routing_document(served->name, served->version, layers, count, &body);
    stats_close(&total);
    free(layers);
    reply(exchange, 200, NULL, &body);
}

DESCRIBE(list)
{
    (void)params;
    const struct registry *registry = &server->registry;
    const char **names = xcalloc(registry->count, sizeof *names);
    size_t count = 0, first, last;
    for (size_t i = 0; i < registry->count; i = last) {
        registry_versions(registry, registry->items[i], &first, &last);
        names[count++] = registry->items[i]->name;
    }
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    v1_model_list(names, count, &body);
    free(names);
    reply(exchange, 200, NULL, &body);
}

DESCRIBE(v1_model)
{
    struct served *served = find_or_reply(server, exchange, params);
    if (!served)
        return;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    v1_model_status(&served->signature, !server->process->stopping, &body);
    reply(exchange, 200, NULL, &body);
}

DESCRIBE(metrics)
{
    (void)params;
    struct buffer body;
    buffer_init(&body, MAX_DOCUMENT_BYTES);
    metrics_page(server, &body);
    reply(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

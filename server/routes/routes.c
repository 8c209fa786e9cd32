/* The route table is the API.
 *
 * A request goes: route -> model, if the route needs one -> admission -> handler. */
#include "server/routes/routes.h"

#include <stdio.h>
#include <string.h>

#include "proto/json.h"
#include "proto/oip.h"
#include "proto/openai.h"
#include "proto/openapi.h"
#include "proto/v1.h"
#include "server/access/cors.h"
#include "server/http/http_percent.h"
#include "server/routes/describe.h"
#include "server/routes/expand.h"
#include "server/routes/feedback_api.h"
#include "server/routes/live.h"
#include "server/routes/logging_api.h"
#include "server/routes/openai_api.h"
#include "server/routes/page.h"
#include "server/routes/quarantine_api.h"
#include "server/routes/repository_api.h"
#include "server/routes/request_id.h"
#include "server/routes/request_times.h"
#include "server/routes/trace_api.h"
#include "server/statistics/recorder.h"

enum route_flags {
    NEEDS_MODEL = 1,
    NEEDS_BODY = 2,
    INFERENCE = NEEDS_MODEL | NEEDS_BODY,
    VITAL = 4,          /* answered also when all connections are in use */
    KNOWS_MODEL = 8,    /* of a model that need not be served now */
    OPENAI_ERRORS = 16, /* errors as OpenAI's clients read them */
    COUNTED = 32,       /* as predictions, of the protocol "openai" */
    OPENAI_TEXT = NEEDS_BODY | OPENAI_ERRORS,
    OPENAI = OPENAI_TEXT | COUNTED,
};

struct route {
    enum http_method method;
    const char *pattern;
    api_handler *handle;
    const struct protocol *protocol; /* of inference; NULL for all else */
    enum role role;
    unsigned flags;
    const char *summary; /* what it answers or does */
};

static void predict(const struct api *api, struct exchange *exchange, const struct target *target)
{
    predict_request(api->predict, target->model, exchange, target->protocol);
}

static api_handler describe_openapi; /* of this table */

/* clang-format off */
static const struct route ROUTES[] = {
    {HTTP_POST, "/v2/models/{m}/infer", predict, &protocol_oip, ROLE_PREDICT, INFERENCE,
     "predictions"},
    {HTTP_POST, "/v2/models/{m}/versions/{v}/infer", predict, &protocol_oip, ROLE_PREDICT, INFERENCE,
     "predictions"},
    {HTTP_POST, "/v1/models/{m}:predict", predict, &protocol_v1, ROLE_PREDICT, INFERENCE,
     "predictions"},
    {HTTP_POST, "/v1/models/{m}/versions/{v}:predict", predict, &protocol_v1, ROLE_PREDICT, INFERENCE,
     "predictions"},
    {HTTP_POST, "/v2/models/{m}/feedback", feedback_receive, NULL, ROLE_PREDICT, INFERENCE,
     "tells the true classes of rows that were answered"},
    {HTTP_POST, "/v2/models/{m}/versions/{v}/feedback", feedback_receive, NULL, ROLE_PREDICT, INFERENCE,
     "tells the true classes of rows that were answered"},
    {HTTP_GET, "/", page_root, NULL, ROLE_HEALTH, VITAL,
     "the page in a browser; else whether the server lives"},
    {HTTP_GET, "/ui/{m}", page_asset, NULL, ROLE_HEALTH, 0,
     "a file of the page"},
    {HTTP_GET, "/v2", describe_server, NULL, ROLE_PREDICT, 0,
     "name, version and extensions"},
    {HTTP_GET, "/v2/", describe_server, NULL, ROLE_PREDICT, 0,
     "name, version and extensions"},
    {HTTP_GET, "/v2/health/live", describe_live, NULL, ROLE_HEALTH, VITAL,
     "whether the server lives"},
    {HTTP_GET, "/v2/health/ready", describe_ready, NULL, ROLE_HEALTH, VITAL,
     "whether the server should get requests"},
    {HTTP_GET, "/v2/models/stats", request_times_describe, NULL, ROLE_METRICS, 0,
     "requests and batches with their times"},
    {HTTP_GET, "/v2/models/{m}/stats", request_times_describe, NULL, ROLE_METRICS, NEEDS_MODEL,
     "requests and batches with their times"},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/stats", request_times_describe, NULL, ROLE_METRICS, NEEDS_MODEL,
     "requests and batches with their times"},
    {HTTP_GET, "/v2/models/{m}", describe_model, NULL, ROLE_PREDICT, NEEDS_MODEL,
     "a model's inputs and outputs"},
    {HTTP_GET, "/v2/models/{m}/versions/{v}", describe_model, NULL, ROLE_PREDICT, NEEDS_MODEL,
     "a model's inputs and outputs"},
    {HTTP_GET, "/v2/models/{m}/ready", describe_model_ready, NULL, ROLE_PREDICT, KNOWS_MODEL,
     "whether a model is served"},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/ready", describe_model_ready, NULL, ROLE_PREDICT, KNOWS_MODEL,
     "whether a model is served"},
    {HTTP_GET, "/v2/models/{m}/config", describe_config, NULL, ROLE_PREDICT, NEEDS_MODEL,
     "a model's configuration"},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/config", describe_config, NULL, ROLE_PREDICT, NEEDS_MODEL,
     "a model's configuration"},
    {HTTP_GET, "/v2/models/{m}/routing", describe_routing, NULL, ROLE_METRICS, NEEDS_MODEL,
     "what each expert has served"},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/routing", describe_routing, NULL, ROLE_METRICS, NEEDS_MODEL,
     "what each expert has served"},
    {HTTP_GET, "/v2/models/{m}/routing/live", live_routing, NULL, ROLE_METRICS, NEEDS_MODEL,
     "the same, as events"},
    {HTTP_POST, "/v2/models/{m}/routing/reset", describe_routing_reset, NULL, ROLE_ADMIN, NEEDS_MODEL,
     "lets routing statistics begin anew"},
    {HTTP_POST, "/v2/models/{m}/versions/{v}/routing/reset", describe_routing_reset, NULL, ROLE_ADMIN, NEEDS_MODEL,
     "lets routing statistics begin anew"},
    {HTTP_POST, "/v2/models/{m}/routing/snapshot", describe_routing_snapshot, NULL, ROLE_ADMIN, NEEDS_MODEL,
     "keeps routing statistics, and says all of them"},
    {HTTP_POST, "/v2/models/{m}/versions/{v}/routing/snapshot", describe_routing_snapshot, NULL, ROLE_ADMIN, NEEDS_MODEL,
     "keeps routing statistics, and says all of them"},
    {HTTP_POST, "/v2/models/{m}/routing/quarantine", quarantine_put_in, NULL, ROLE_ADMIN, INFERENCE,
     "routes around an expert"},
    {HTTP_POST, "/v2/models/{m}/versions/{v}/routing/quarantine", quarantine_put_in, NULL, ROLE_ADMIN, INFERENCE,
     "routes around an expert"},
    {HTTP_DELETE, "/v2/models/{m}/routing/quarantine", quarantine_let_out, NULL, ROLE_ADMIN, INFERENCE,
     "lets an expert serve again"},
    {HTTP_DELETE, "/v2/models/{m}/versions/{v}/routing/quarantine", quarantine_let_out, NULL, ROLE_ADMIN, INFERENCE,
     "lets an expert serve again"},
    {HTTP_POST, "/v1/completions", openai_completions, NULL, ROLE_PREDICT, OPENAI,
     "text that goes on from a prompt"},
    {HTTP_POST, "/v1/chat/completions", openai_chat_completions, NULL, ROLE_PREDICT, OPENAI,
     "the next message of a chat"},
    {HTTP_POST, "/v1/embeddings", openai_embeddings, NULL, ROLE_PREDICT, OPENAI,
     "vectors of texts"},
    {HTTP_POST, "/tokenize", openai_tokenize, NULL, ROLE_PREDICT, OPENAI_TEXT,
     "the token ids of a text"},
    {HTTP_POST, "/detokenize", openai_detokenize, NULL, ROLE_PREDICT, OPENAI_TEXT,
     "the text of token ids"},
    {HTTP_POST, "/apply-template", openai_apply_template, NULL, ROLE_PREDICT, OPENAI_TEXT,
     "the prompt that a chat is turned into"},
    {HTTP_GET, "/start_expert_distribution_record", recorder_start, NULL, ROLE_ADMIN, 0,
     "begins to record how experts are used"},
    {HTTP_POST, "/start_expert_distribution_record", recorder_start, NULL, ROLE_ADMIN, 0,
     "begins to record how experts are used"},
    {HTTP_GET, "/stop_expert_distribution_record", recorder_stop, NULL, ROLE_ADMIN, 0,
     "ends the recording"},
    {HTTP_POST, "/stop_expert_distribution_record", recorder_stop, NULL, ROLE_ADMIN, 0,
     "ends the recording"},
    {HTTP_GET, "/dump_expert_distribution_record", recorder_dump, NULL, ROLE_ADMIN, 0,
     "what was recorded, for SGLang's --init-expert-location"},
    {HTTP_POST, "/dump_expert_distribution_record", recorder_dump, NULL, ROLE_ADMIN, 0,
     "what was recorded, for SGLang's --init-expert-location"},
    {HTTP_GET, "/v1/models", openai_models, NULL, ROLE_PREDICT, OPENAI_ERRORS,
     "the models' names"},
    {HTTP_GET, "/v1/models/{m}", openai_model, NULL, ROLE_PREDICT, KNOWS_MODEL | OPENAI_ERRORS,
     "whether a model is served"},
    {HTTP_GET, "/v1/models/{m}/versions/{v}", describe_v1_model, NULL, ROLE_PREDICT, KNOWS_MODEL,
     "whether a model is served"},
    {HTTP_POST, "/v2/repository/index", repository_api_index, NULL, ROLE_METRICS, NEEDS_BODY,
     "the state of every model"},
    {HTTP_POST, "/v2/repository/models/{m}/load", repository_api_load, NULL, ROLE_ADMIN, NEEDS_BODY,
     "loads a model"},
    {HTTP_POST, "/v2/repository/models/{m}/unload", repository_api_unload, NULL, ROLE_ADMIN, NEEDS_BODY,
     "unloads a model"},
    {HTTP_GET, "/v2/logging", logging_api_get, NULL, ROLE_METRICS, 0,
     "the log's settings"},
    {HTTP_POST, "/v2/logging", logging_api_set, NULL, ROLE_ADMIN, NEEDS_BODY,
     "changes the log's settings"},
    {HTTP_GET, "/v2/trace/setting", trace_api_get, NULL, ROLE_METRICS, 0,
     "the settings of traces"},
    {HTTP_POST, "/v2/trace/setting", trace_api_set, NULL, ROLE_ADMIN, NEEDS_BODY,
     "changes how many requests are traced"},
    {HTTP_GET, "/healthz", describe_live, NULL, ROLE_HEALTH, VITAL,
     "whether the server lives"},
    {HTTP_GET, "/livez", describe_live, NULL, ROLE_HEALTH, VITAL,
     "whether the server lives"},
    {HTTP_GET, "/health", describe_ready, NULL, ROLE_HEALTH, VITAL,
     "whether the server should get requests"},
    {HTTP_GET, "/readyz", describe_ready, NULL, ROLE_HEALTH, VITAL,
     "whether the server should get requests"},
    {HTTP_GET, "/openapi.json", describe_openapi, NULL, ROLE_PREDICT, 0,
     "this document"},
    {HTTP_GET, "/metrics", describe_metrics, NULL, ROLE_METRICS, VITAL,
     "figures for Prometheus"},
};
/* clang-format on */

/* ---- the table as a document ---- */

static bool tells_readiness(const struct route *route)
{
    return route->handle == describe_ready || (route->flags & KNOWS_MODEL);
}

static void describe_openapi(const struct api *api, struct exchange *exchange,
                             const struct target *target)
{
    enum { COUNT = sizeof ROUTES / sizeof *ROUTES };
    struct openapi_route routes[COUNT];
    struct buffer body;
    (void)api, (void)target;
    for (size_t i = 0; i < COUNT; i++)
        routes[i] = (struct openapi_route){.method = ROUTES[i].method == HTTP_POST     ? "post"
                                                     : ROUTES[i].method == HTTP_DELETE ? "delete"
                                                                                       : "get",
                                           .path = ROUTES[i].pattern,
                                           .summary = ROUTES[i].summary,
                                           .tag = role_name(ROUTES[i].role),
                                           .has_body = ROUTES[i].flags & NEEDS_BODY,
                                           .openai_errors = ROUTES[i].flags & OPENAI_ERRORS,
                                           .tells_readiness = tells_readiness(&ROUTES[i])};
    describe_new(&body);
    openapi_document(MOED_VERSION, routes, COUNT, &body);
    describe_reply(exchange, 200, NULL, &body);
}

/* ---- paths ---- */

/* Where the parameter that begins at `path` ends: at the next '/' or ':'. Names have no ':', so
 * "/v1/models/{m}" does not match a path that ends in an action such as ":predict". */
static const char *param_end(const char *path)
{
    return path + strcspn(path, "/:");
}

bool route_match(const char *pattern, const char *path, struct route_params *params)
{
    *params = (struct route_params){0};
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        bool model = pattern[1] == 'm';
        pattern += strlen("{m}");
        const char *end = param_end(path);
        if (end == path ||
            !http_percent_decode(path, end, model ? params->model : params->version,
                                 model ? sizeof params->model : sizeof params->version))
            return false;
        path = end;
    }
    return *path == '\0';
}

bool routes_is_vital(const char *path)
{
    struct route_params params;
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++)
        if ((ROUTES[i].flags & VITAL) && route_match(ROUTES[i].pattern, path, &params))
            return true;
    return false;
}

/* ---- a request ---- */

static int not_found(const struct exchange *exchange, struct error *err)
{
    return error_set(err, ERROR_NOT_FOUND, "no such path: %.200s", exchange->path);
}

/* HEAD must change nothing, as what an administrator may GET does. */
static bool route_takes(const struct route *route, enum http_method method)
{
    if (method == HTTP_HEAD)
        return route->method == HTTP_GET && route->role != ROLE_ADMIN;
    return route->method == method;
}

static bool path_takes(const struct exchange *exchange, enum http_method method)
{
    struct route_params params;
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++)
        if (route_takes(&ROUTES[i], method) &&
            route_match(ROUTES[i].pattern, exchange->path, &params))
            return true;
    return false;
}

static int method_not_allowed(struct exchange *exchange, struct error *err)
{
    static const struct {
        enum http_method method;
        const char *name;
    } METHODS[] = {
        {HTTP_GET, "GET"}, {HTTP_HEAD, "HEAD"}, {HTTP_POST, "POST"}, {HTTP_DELETE, "DELETE"}};
    char allowed[sizeof "GET, HEAD, POST, DELETE"] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++)
        if (path_takes(exchange, METHODS[i].method))
            used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%s",
                                     used ? ", " : "", METHODS[i].name);
    exchange_header(exchange, "Allow", allowed);
    return error_set(err, ERROR_METHOD, "%.200s takes %s, not %.20s", exchange->path, allowed,
                     exchange->method_text);
}

/* The route of the path, and of the method if there is one of both: `takes` says which. */
static const struct route *match(const struct exchange *exchange, struct route_params *params,
                                 bool *takes)
{
    const struct route *other = NULL;
    *takes = true;
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++) {
        if (!route_match(ROUTES[i].pattern, exchange->path, params))
            continue;
        if (route_takes(&ROUTES[i], exchange->method))
            return &ROUTES[i];
        other = &ROUTES[i];
    }
    *takes = false;
    return other;
}

void routes_write_error(const struct exchange *exchange, const struct error *err,
                        struct buffer *body)
{
    struct route_params params;
    bool takes;
    const struct route *route = match(exchange, &params, &takes);
    if (route && (route->flags & OPENAI_ERRORS))
        openai_write_error(err, body);
    else
        json_append_error(body, err->text);
}

/* Finds the model that the path names and notes it for the log and the metrics. */
static int find_target(const struct api *api, const struct route *route,
                       const struct route_params *params, struct target *target, struct error *err)
{
    *target = (struct target){.name = params->model,
                              .version = *params->version ? params->version : NULL};
    if (!(route->flags & (NEEDS_MODEL | KNOWS_MODEL)))
        return 0;
    target->model = catalog_find(api->lanes->catalog, target->name, target->version, err);
    bool is_known = target->model || err->code == ERROR_UNAVAILABLE;
    return target->model || (is_known && (route->flags & KNOWS_MODEL)) ? 0 : -1;
}

/* Inference in the protocol of the route, or that of the exchange's edge. */
static const struct protocol *protocol_of(const struct route *route,
                                          const struct exchange *exchange)
{
    return route->protocol && exchange->protocol ? exchange->protocol : route->protocol;
}

/* For the log and the metrics; NULL: no request for predictions. */
static const char *protocol_name(const struct route *route, const struct exchange *exchange)
{
    const struct protocol *protocol = protocol_of(route, exchange);
    return protocol ? protocol->name : route->flags & COUNTED ? "openai" : NULL;
}

/* `takes`: any method may be asked for, but not of any route. */
static void note_route(const struct route *route, bool takes, struct exchange *exchange)
{
    exchange->log_protocol = protocol_name(route, exchange);
    exchange->log_route = takes ? route->pattern : NULL;
}

/* What is open to strangers must not take bodies from them, which fill the memory that the requests
 * of others need. */
static int refuse_open_body(struct exchange *exchange, const struct route *route, bool takes,
                            struct error *err)
{
    if (route && !takes)
        return method_not_allowed(exchange, err);
    return error_set(err, ERROR_TOO_LARGE, "%.200s takes no body", exchange->path);
}

/* A path that is none takes a token all the same, but not the question of a browser whether it may
 * ask, which comes without one. */
int routes_admit(const struct api *api, struct exchange *exchange, bool on_admin_listener,
                 struct error *err)
{
    struct route_params params;
    bool takes;
    const struct route *route = match(exchange, &params, &takes);
    cors_mark(api->options->cors_origin, exchange);
    bool is_open = cors_is_preflight(exchange) || (route && route->role == ROLE_HEALTH);
    int result;
    if (is_open)
        result = exchange->awaits_body ? refuse_open_body(exchange, route, takes, err) : 0;
    else
        result = access_check(api->access, route ? route->role : ROLE_PREDICT, on_admin_listener,
                              exchange, err);
    if (result == 0)
        return 0;
    if (route)
        note_route(route, takes, exchange);
    request_id_set(exchange, NULL);
    return -1;
}

static void count_refusal(const struct api *api, const struct route *route,
                          const struct target *target)
{
    if (route->protocol)
        stats_add_rejection(&target->model->stats->loop[api->lanes->options.loop], REJECT_INVALID);
}

static void on_expanded(const struct api *api, struct exchange *exchange, struct error *err);

/* Finds the route and what it needs, and hands the exchange over. `expanded`: its body has been
 * compressed, and `err` says whether it is whole. */
static void dispatch(const struct api *api, struct exchange *exchange, bool expanded,
                     struct error *err)
{
    struct route_params params;
    struct target target;
    bool takes;
    enum coding coding = CODING_IDENTITY;
    const struct route *route = match(exchange, &params, &takes);
    if (takes)
        note_route(route, true, exchange);
    struct error absent = ERROR_INIT; /* may be set for a model that is known but not served */
    const int failed = takes   ? find_target(api, route, &params, &target, &absent)
                       : route ? method_not_allowed(exchange, &absent)
                               : not_found(exchange, &absent);
    if (failed) {
        request_id_set(exchange, NULL);
        exchange_reply_error(exchange, &absent);
        return;
    }
    target.protocol = protocol_of(route, exchange);
    model_release(exchange->model);
    exchange->model = target.model ? model_hold(target.model) : NULL;
    if (!expanded && (route->flags & NEEDS_BODY) &&
        coding_of(exchange_header_in(exchange, "Content-Encoding"), &coding, err) == 0 &&
        coding != CODING_IDENTITY) {
        expand_body(api, exchange, coding, on_expanded);
        return;
    }
    bool admitted = err->code == ERROR_NONE;
    if (!route->protocol || !admitted) /* the body of others may have an id */
        request_id_set(exchange, NULL);
    if (admitted) {
        route->handle(api, exchange, &target);
        return;
    }
    count_refusal(api, route, &target);
    exchange_reply_error(exchange, err);
}

static void on_expanded(const struct api *api, struct exchange *exchange, struct error *err)
{
    dispatch(api, exchange, true, err);
}

void routes_dispatch(const struct api *api, struct exchange *exchange)
{
    struct error err = ERROR_INIT;
    if (!cors_answer(api->options->cors_origin, exchange))
        dispatch(api, exchange, false, &err);
}

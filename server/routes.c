/* The route table; see routes.h. Reading it is reading the API. */
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

#include "server/describe.h"
#include "server/server.h"

struct route {
    enum http_method method;
    const char *pattern;
    void (*handle)(struct server *server, struct exchange *exchange,
                   const struct route_params *params);
};

static void predict(struct server *server, struct exchange *exchange,
                    const struct route_params *params, bool v1)
{
    struct error err = ERROR_INIT;
    exchange->log_protocol = v1 ? "v1" : "oip";
    struct served *served = describe_find(server, exchange, params, &err);
    if (served)
        predict_request(&server->predict, served, exchange, v1);
    else
        exchange_reply_error(exchange, &err);
}

static void oip_infer(struct server *server, struct exchange *exchange,
                      const struct route_params *params)
{
    predict(server, exchange, params, false);
}

static void v1_predict(struct server *server, struct exchange *exchange,
                       const struct route_params *params)
{
    predict(server, exchange, params, true);
}

static const struct route ROUTES[] = {
    {HTTP_POST, "/v2/models/{m}/infer", oip_infer},
    {HTTP_POST, "/v2/models/{m}/versions/{v}/infer", oip_infer},
    {HTTP_POST, "/v1/models/{m}:predict", v1_predict},
    {HTTP_POST, "/v1/models/{m}/versions/{v}:predict", v1_predict},
    {HTTP_GET, "/", describe_alive},
    {HTTP_GET, "/v2", describe_server},
    {HTTP_GET, "/v2/", describe_server},
    {HTTP_GET, "/v2/health/live", describe_live},
    {HTTP_GET, "/v2/health/ready", describe_ready},
    {HTTP_GET, "/v2/models/{m}", describe_model},
    {HTTP_GET, "/v2/models/{m}/versions/{v}", describe_model},
    {HTTP_GET, "/v2/models/{m}/ready", describe_model_ready},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/ready", describe_model_ready},
    {HTTP_GET, "/v2/models/{m}/config", describe_config},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/config", describe_config},
    {HTTP_GET, "/v2/models/{m}/routing", describe_routing},
    {HTTP_GET, "/v2/models/{m}/versions/{v}/routing", describe_routing},
    {HTTP_GET, "/v1/models", describe_list},
    {HTTP_GET, "/v1/models/{m}", describe_v1_model},
    {HTTP_GET, "/v1/models/{m}/versions/{v}", describe_v1_model},
    {HTTP_GET, "/metrics", describe_metrics},
};

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes [from, to) into text; false when empty, too long or not valid. */
static bool decode(const char *from, const char *to, char *text, size_t size)
{
    size_t length = 0;
    while (from < to) {
        char c = *from++;
        if (c == '%') {
            if (to - from < 2 || hex(from[0]) < 0 || hex(from[1]) < 0)
                return false;
            c = (char)(hex(from[0]) << 4 | hex(from[1]));
            from += 2;
        }
        if (c == '\0' || length + 1 >= size)
            return false;
        text[length++] = c;
    }
    text[length] = '\0';
    return length > 0;
}

/* Where the parameter that begins at `path` ends: at the next '/' or ':'. No name holds a ':', so
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
        const bool model = pattern[1] == 'm';
        pattern += strlen("{m}");
        const char *end = param_end(path);
        if (!decode(path, end, model ? params->model : params->version,
                    model ? sizeof params->model : sizeof params->version))
            return false;
        path = end;
    }
    return *path == '\0';
}

static bool is_vital(const struct route *route)
{
    return route->handle == describe_alive || route->handle == describe_live ||
           route->handle == describe_ready || route->handle == describe_metrics;
}

bool routes_is_vital(const char *path)
{
    struct route_params params;
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++)
        if (is_vital(&ROUTES[i]) && route_match(ROUTES[i].pattern, path, &params))
            return true;
    return false;
}

static void not_found(struct exchange *exchange)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_NOT_FOUND, "no such path: %.200s", exchange->path);
    exchange_reply_error(exchange, &err);
}

static void method_not_allowed(struct exchange *exchange, const struct route *route)
{
    struct error err = ERROR_INIT;
    const char *allowed = route->method == HTTP_POST ? "POST" : "GET, HEAD";
    error_set(&err, ERROR_METHOD, "%.200s takes %s, not %.20s", exchange->path, allowed,
              exchange->method_text);
    exchange_header(exchange, "Allow", allowed);
    exchange_reply_error(exchange, &err);
}

void routes_dispatch(struct server *server, struct exchange *exchange)
{
    struct route_params params;
    const enum http_method method = exchange->method == HTTP_HEAD ? HTTP_GET : exchange->method;
    const struct route *other = NULL;
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++) {
        if (!route_match(ROUTES[i].pattern, exchange->path, &params))
            continue;
        if (ROUTES[i].method == method) {
            ROUTES[i].handle(server, exchange, &params);
            return;
        }
        other = &ROUTES[i];
    }
    if (other)
        method_not_allowed(exchange, other);
    else
        not_found(exchange);
}

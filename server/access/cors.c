/* No credentials are involved: an origin that is allowed may do what anybody may who reaches the
 * port. */
#include "server/access/cors.h"

#include <string.h>

#include "core/text.h"
#include "server/http/http.h"

static bool is_listed(const char *allowed, const char *origin)
{
    const char *item;
    size_t length;
    while (text_next_item(&allowed, &item, &length))
        if (strlen(origin) == length && memcmp(item, origin, length) == 0)
            return true;
    return false;
}

enum { ORIGIN_BYTES = 63 };

/* What browsers send: scheme, host and maybe a port, and nothing behind them. */
static bool is_origin(const char *item, size_t length)
{
    const char *end = item + length, *host = memmem(item, length, "://", strlen("://"));
    if (!host || host == item || length > ORIGIN_BYTES)
        return false;
    host += strlen("://");
    for (const char *c = item; c < end; c++)
        if ((unsigned char)*c <= ' ' || (*c == '/' && c >= host))
            return false;
    return host < end;
}

int cors_check(const char *allowed, struct error *err)
{
    const char *list = allowed, *item;
    char origin[256], shown[128];
    size_t length;
    if (!allowed || strcmp(allowed, "*") == 0)
        return 0;
    while (text_next_item(&list, &item, &length)) {
        if (is_origin(item, length))
            continue;
        snprintf(origin, sizeof origin, "%.*s", length < 255 ? (int)length : 255, item);
        text_hide_user(origin, shown, sizeof shown);
        return error_set(err, ERROR_INVALID,
                         "cors_origin has \"%.100s\", expected https://HOST[:PORT] of at most %d "
                         "bytes without a path, or * for all",
                         shown, ORIGIN_BYTES);
    }
    return 0;
}

bool cors_allows(const char *allowed, const char *origin)
{
    return allowed && (strcmp(allowed, "*") == 0 || is_listed(allowed, origin));
}

bool cors_is_preflight(const struct exchange *exchange)
{
    return strcmp(exchange->method_text, "OPTIONS") == 0 &&
           exchange_header_in(exchange, "Access-Control-Request-Method");
}

void cors_mark(const char *allowed, struct exchange *exchange)
{
    const char *origin = exchange_header_in(exchange, "Origin");
    if (!allowed || !origin)
        return;
    bool anybody = strcmp(allowed, "*") == 0;
    if (!anybody)
        exchange_header(exchange, "Vary", "Origin");
    if (!cors_allows(allowed, origin))
        return;
    exchange_header(exchange, "Access-Control-Allow-Origin", anybody ? "*" : origin);
    exchange_header(exchange, "Access-Control-Expose-Headers", "*");
}

bool cors_answer(const char *allowed, struct exchange *exchange)
{
    const char *origin = exchange_header_in(exchange, "Origin");
    if (!origin || !cors_allows(allowed, origin) || !cors_is_preflight(exchange))
        return false;
    struct buffer nothing;
    buffer_init(&nothing, 16);
    exchange_header(exchange, "Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE");
    exchange_header(exchange, "Access-Control-Allow-Headers", "Authorization, *");
    exchange_header(exchange, "Access-Control-Max-Age", "600");
    exchange_reply(exchange, 204, NULL, &nothing);
    buffer_close(&nothing);
    return true;
}

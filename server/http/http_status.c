/* The one table of HTTP statuses; PROTOCOL.md lists them for clients. */
#include "server/http/http_status.h"

static const int STATUSES[ERROR_CODE_COUNT] = {
    [ERROR_NONE] = 200,
    [ERROR_INVALID] = 400,
    [ERROR_CONTEXT] = 400,
    [ERROR_UNAUTHENTICATED] = 401,
    [ERROR_FORBIDDEN] = 403,
    [ERROR_NOT_FOUND] = 404,
    [ERROR_METHOD] = 405,
    [ERROR_TIMEOUT] = 408,
    [ERROR_TOO_LARGE] = 413,
    [ERROR_TARGET_TOO_LONG] = 414,
    [ERROR_MEDIA_TYPE] = 415,
    [ERROR_OVERLOADED] = 429,
    [ERROR_HEADER_TOO_LARGE] = 431,
    [ERROR_DISCONNECTED] = 499, /* as nginx logs a client that has gone */
    [ERROR_INTERNAL] = 500,
    [ERROR_UNSUPPORTED] = 501,
    [ERROR_UNAVAILABLE] = 503,
    [ERROR_DEADLINE] = 504,
    [ERROR_VERSION] = 505,
};

int error_http_status(enum error_code code)
{
    return STATUSES[code];
}

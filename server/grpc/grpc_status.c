/* The one table of gRPC's codes; proto/GRPC.md lists them for clients. */
#include "server/grpc/grpc_status.h"

#include <string.h>

#include "core/text.h"

static const enum grpc_status STATUSES[ERROR_CODE_COUNT] = {
    [ERROR_NONE] = GRPC_OK,
    [ERROR_INVALID] = GRPC_INVALID_ARGUMENT,
    [ERROR_CONTEXT] = GRPC_INVALID_ARGUMENT,
    [ERROR_UNAUTHENTICATED] = GRPC_UNAUTHENTICATED,
    [ERROR_FORBIDDEN] = GRPC_PERMISSION_DENIED,
    [ERROR_NOT_FOUND] = GRPC_NOT_FOUND,
    [ERROR_METHOD] = GRPC_UNIMPLEMENTED,
    [ERROR_TIMEOUT] = GRPC_DEADLINE_EXCEEDED,
    [ERROR_TOO_LARGE] = GRPC_RESOURCE_EXHAUSTED,
    [ERROR_TARGET_TOO_LONG] = GRPC_RESOURCE_EXHAUSTED,
    [ERROR_MEDIA_TYPE] = GRPC_UNIMPLEMENTED,
    [ERROR_OVERLOADED] = GRPC_RESOURCE_EXHAUSTED,
    [ERROR_HEADER_TOO_LARGE] = GRPC_RESOURCE_EXHAUSTED,
    [ERROR_DISCONNECTED] = GRPC_CANCELLED,
    [ERROR_INTERNAL] = GRPC_INTERNAL,
    [ERROR_UNSUPPORTED] = GRPC_UNIMPLEMENTED,
    [ERROR_UNAVAILABLE] = GRPC_UNAVAILABLE,
    [ERROR_DEADLINE] = GRPC_DEADLINE_EXCEEDED,
    [ERROR_VERSION] = GRPC_UNIMPLEMENTED,
};

enum grpc_status grpc_status_of(enum error_code code)
{
    return STATUSES[code];
}

void grpc_write_message(const char *text, char message[GRPC_MESSAGE_BYTES])
{
    static const char DIGITS[] = "0123456789ABCDEF";
    size_t length = 0;
    for (; *text && length + 4 < GRPC_MESSAGE_BYTES; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= ' ' && c < 0x7F && c != '%') {
            message[length++] = *text;
            continue;
        }
        message[length++] = '%';
        message[length++] = DIGITS[c >> 4];
        message[length++] = DIGITS[c & 15];
    }
    message[length] = '\0';
}

int grpc_read_timeout(const char *text, uint64_t *microseconds, struct error *err)
{
    static const struct {
        char unit;
        uint64_t multiply, divide;
    } UNITS[] = {{'H', 3600000000, 1}, {'M', 60000000, 1}, {'S', 1000000, 1},
                 {'m', 1000, 1},       {'u', 1, 1},        {'n', 1, 1000}};
    enum { MOST_DIGITS = 8 };
    uint64_t value = 0;
    const char *end = text_whole_number(text, &value);
    for (size_t i = 0; end && end - text <= MOST_DIGITS && i < sizeof UNITS / sizeof *UNITS; i++)
        if (end[0] == UNITS[i].unit && end[1] == '\0') {
            value = value * UNITS[i].multiply / UNITS[i].divide;
            *microseconds = value ? value : 1;
            return 0;
        }
    return error_set(
        err, ERROR_INVALID,
        "grpc-timeout is '%.32s', expected up to eight digits and one of H, M, S, m, u "
        "and n",
        text);
}

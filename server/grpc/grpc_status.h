/* gRPC's status codes, and the texts of its header fields. */
#ifndef SERVER_GRPC_STATUS_H
#define SERVER_GRPC_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16,
};

enum grpc_status grpc_status_of(enum error_code code);

/* Writes grpc-message: `text` percent-encoded. */
enum { GRPC_MESSAGE_BYTES = 3 * ERROR_TEXT_BYTES };
void grpc_write_message(const char *text, char message[GRPC_MESSAGE_BYTES]);

/* Reads grpc-timeout, at most eight digits and a unit, as microseconds, at least one. */
MUST_CHECK int grpc_read_timeout(const char *text, uint64_t *microseconds, struct error *err);

#endif

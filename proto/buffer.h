/* A growable byte buffer: request bodies, response bodies, metrics pages.
 *
 * Every buffer is created with a limit, so that nothing a peer sends can grow one without end. A
 * failure (limit or memory) is sticky: the writer goes on and checks `failed` once at the end. */
#ifndef PROTO_BUFFER_H
#define PROTO_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct buffer {
    char *data; /* owned; not NUL-terminated */
    size_t length, capacity, limit;
    bool failed;
    bool no_memory; /* memory ran out; the limit was not reached */
};

void buffer_init(struct buffer *buffer, size_t limit);
void buffer_close(struct buffer *buffer);

/* Makes room for `extra` more bytes and returns where they go; NULL on failure. The caller writes
 * at most `extra` bytes there and adds their count to `length`. */
char *buffer_reserve(struct buffer *buffer, size_t extra);
void buffer_append(struct buffer *buffer, const void *bytes, size_t count);
void buffer_text(struct buffer *buffer, const char *text);
void buffer_format(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What comes from a buffer that failed fails with it. */
void buffer_fail_with(struct buffer *buffer, const struct buffer *source);

/* Records why a failed buffer failed: no memory for `what`, or "<what> is longer than ... bytes:
 * <advice>". Returns -1. */
int buffer_error(const struct buffer *buffer, const char *what, const char *advice,
                 struct error *err);

/* Gives the bytes to the caller, who frees them, and leaves the buffer empty. NULL if it was empty
 * or failed. */
char *buffer_steal(struct buffer *buffer, size_t *length);

#endif

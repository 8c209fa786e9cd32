/* Capacity doubles up to the limit; the first failure sticks. */
#include "proto/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One small answer fits without growing. */
enum { BUFFER_FIRST_BYTES = 512 };

void buffer_init(struct buffer *buffer, size_t limit)
{
    *buffer = (struct buffer){.limit = limit};
}

void buffer_close(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){.limit = buffer->limit};
}

/* Doubles, so that appending takes linear time in total; never exceeds the limit. */
static size_t grown_capacity(const struct buffer *buffer, size_t needed)
{
    size_t capacity = buffer->capacity ? buffer->capacity : BUFFER_FIRST_BYTES;
    while (capacity < needed && capacity <= buffer->limit / 2)
        capacity *= 2;
    if (capacity < needed || capacity > buffer->limit)
        capacity = buffer->limit;
    return capacity;
}

char *buffer_reserve(struct buffer *buffer, size_t extra)
{
    if (buffer->failed || extra > buffer->limit - buffer->length) {
        buffer->failed = true;
        return NULL;
    }
    size_t needed = buffer->length + extra;
    if (needed > buffer->capacity || !buffer->data) {
        size_t capacity = grown_capacity(buffer, needed);
        char *data = realloc(buffer->data, capacity ? capacity : 1);
        if (!data) {
            buffer->failed = buffer->no_memory = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->length;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t count)
{
    if (count == 0)
        return;
    char *place = buffer_reserve(buffer, count);
    if (!place)
        return;
    memcpy(place, bytes, count);
    buffer->length += count;
}

void buffer_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_format(struct buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int bytes = vsnprintf(NULL, 0, format, args);
    va_end(args);
    /* vsnprintf appends a NUL, which needs room but is not counted. */
    char *place = bytes < 0 ? NULL : buffer_reserve(buffer, (size_t)bytes + 1);
    if (!place) {
        buffer->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(place, (size_t)bytes + 1, format, args);
    va_end(args);
    buffer->length += (size_t)bytes;
}

void buffer_fail_with(struct buffer *buffer, const struct buffer *source)
{
    buffer->failed = buffer->failed || source->failed;
    buffer->no_memory = buffer->no_memory || source->no_memory;
}

int buffer_error(const struct buffer *buffer, const char *what, const char *advice,
                 struct error *err)
{
    if (buffer->no_memory)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %s", what);
    return error_set(err, ERROR_TOO_LARGE, "%s is longer than %zu bytes: %s", what, buffer->limit,
                     advice);
}

char *buffer_steal(struct buffer *buffer, size_t *length)
{
    bool usable = buffer->length > 0 && !buffer->failed;
    char *data = usable ? buffer->data : NULL;
    *length = usable ? buffer->length : 0;
    if (!usable)
        free(buffer->data);
    *buffer = (struct buffer){.limit = buffer->limit};
    return data;
}

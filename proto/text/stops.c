/* At most one stop string's bytes are held, so that comparing again costs little. */
#include "proto/text/stops.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

int stops_init(struct stops *stops, const char *const *strings, size_t count, struct error *err)
{
    *stops = (struct stops){0};
    buffer_init(&stops->held, SIZE_MAX);
    if (count > STOPS_MAX)
        return error_set(err, ERROR_INVALID, "%zu stop strings, at most %d are allowed", count,
                         STOPS_MAX);
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(strings[i]);
        if (length == 0 || length > STOP_MAX_BYTES) {
            stops_close(stops);
            return error_set(err, ERROR_INVALID, "stop string %zu has %zu bytes, expected 1 to %d",
                             i, length, STOP_MAX_BYTES);
        }
        stops->strings[stops->count++] = xstrdup(strings[i]);
    }
    return 0;
}

void stops_close(struct stops *stops)
{
    for (size_t i = 0; i < stops->count; i++)
        free(stops->strings[i]);
    stops->count = 0;
    buffer_close(&stops->held);
}

enum verdict { NOTHING, BEGINS, STOPS };

/* What the bytes are the start of. */
static enum verdict judge(const struct stops *stops, const char *bytes, size_t length)
{
    enum verdict verdict = NOTHING;
    for (size_t i = 0; i < stops->count; i++) {
        size_t whole = strlen(stops->strings[i]), common = length < whole ? length : whole;
        if (memcmp(bytes, stops->strings[i], common) != 0)
            continue;
        if (common == whole)
            return STOPS;
        verdict = BEGINS;
    }
    return verdict;
}

bool stops_add(struct stops *stops, const char *piece, size_t length, struct buffer *out)
{
    struct buffer *held = &stops->held;
    buffer_append(held, piece, length);
    size_t at = 0;
    enum verdict verdict = NOTHING;
    for (; at < held->length; at++) {
        verdict = judge(stops, held->data + at, held->length - at);
        if (verdict != NOTHING)
            break;
    }
    buffer_append(out, held->data, at);
    buffer_fail_with(out, held);
    if (at > 0)
        memmove(held->data, held->data + at, held->length - at);
    held->length = verdict == STOPS ? 0 : held->length - at;
    return verdict == STOPS;
}

bool stops_end(struct stops *stops, struct buffer *out)
{
    struct buffer *held = &stops->held;
    size_t at = 0;
    while (at < held->length && judge(stops, held->data + at, held->length - at) != STOPS)
        at++;
    bool found = at < held->length;
    buffer_append(out, held->data, at);
    held->length = 0;
    return found;
}

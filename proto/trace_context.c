/* https://www.w3.org/TR/trace-context/#traceparent-header-field-values */
#include "proto/trace_context.h"

#include <string.h>

enum { FLAG_SAMPLED = 1 };

/* Upper case is not allowed. */
static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Reads `count` bytes; returns what follows them, NULL if they are not there. */
static const char *read_bytes(const char *text, uint8_t *bytes, size_t count)
{
    for (size_t i = 0; text && i < count; i++, text += 2) {
        int high = digit_of(text[0]);
        int low = high < 0 ? -1 : digit_of(text[1]);
        if (low < 0)
            return NULL;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return text;
}

static const char *read_dash(const char *text)
{
    return text && *text == '-' ? text + 1 : NULL;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i])
            return false;
    return true;
}

bool trace_context_read(const char *text, struct trace_context *context)
{
    struct trace_context read;
    uint8_t version, flags;
    const char *at = read_dash(read_bytes(text, &version, 1));
    at = read_dash(read_bytes(at, read.trace, sizeof read.trace));
    at = read_dash(read_bytes(at, read.parent, sizeof read.parent));
    at = read_bytes(at, &flags, 1);
    if (!at || version == 0xFF || (version == 0 ? *at != '\0' : *at != '\0' && *at != '-') ||
        is_zero(read.trace, sizeof read.trace) || is_zero(read.parent, sizeof read.parent))
        return false;
    read.sampled = flags & FLAG_SAMPLED;
    *context = read;
    return true;
}

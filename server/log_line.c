/* Log lines as text: logfmt on the caller's stack.
 *
 * Keys are literals. Values may come from anyone: anything in them that could forge a second line,
 * a second pair or a terminal escape is escaped. */
#include "server/log_line.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/text.h"

/* The most bytes of one value in a line: a client that sends an 8 KB path must not push the status,
 * the model and the duration out of its own log line. */
enum { LOG_MAX_VALUE_BYTES = 512 };

static const char *const LEVEL_NAMES[LOG_LEVEL_COUNT] = {"error", "warning", "info", "debug"};

enum log_level log_level_from_name(const char *name)
{
    for (int level = 0; level < LOG_LEVEL_COUNT; level++) {
        if (!strcmp(name, LEVEL_NAMES[level]))
            return (enum log_level)level;
    }
    return LOG_LEVEL_COUNT;
}

/* Bytes that still fit, besides the final newline. */
static size_t room(const struct log_line *line)
{
    return sizeof line->text - 1 - line->length;
}

/* Appends all of it or nothing (-1). */
static int append(struct log_line *line, const char *bytes, size_t count)
{
    if (count > room(line))
        return -1;
    memcpy(line->text + line->length, bytes, count);
    line->length += count;
    return 0;
}

static int append_key(struct log_line *line, const char *key)
{
    if (append(line, " ", 1) != 0 || append(line, key, strlen(key)) != 0)
        return -1;
    return append(line, "=", 1);
}

/* Adds ` key=value`; the value needs no escaping. */
static void append_pair(struct log_line *line, const char *key, const char *value)
{
    if (line->length == 0)
        return;
    size_t before = line->length;
    if (append_key(line, key) != 0 || append(line, value, strlen(value)) != 0)
        line->length = before;
}

static bool is_bare(const char *value)
{
    if (!*value)
        return false;
    for (const char *at = value; *at; at++) {
        if (*at <= ' ' || *at >= 0x7F || *at == '"' || *at == '\\' || *at == '=')
            return false;
    }
    return true;
}

/* Writes the character at `text`, escaped for a place between quotes. Returns the bytes written and
 * puts the bytes read in `taken`. `out` has room for an escaped four-byte sequence. */
static size_t escape(char out[16], const char *text, size_t *taken)
{
    size_t bytes = utf8_character(text);
    *taken = bytes ? bytes : 1;
    const char *shorthand = text[0] == '\n'   ? "\\n"
                            : text[0] == '\r' ? "\\r"
                            : text[0] == '\t' ? "\\t"
                            : text[0] == '"'  ? "\\\""
                            : text[0] == '\\' ? "\\\\"
                                              : NULL;
    if (shorthand) {
        memcpy(out, shorthand, 2);
        return 2;
    }
    if (bytes && !utf8_is_control(text)) {
        memcpy(out, text, bytes);
        return bytes;
    }
    size_t written = 0;
    for (size_t i = 0; i < *taken; i++) {
        static const char digits[] = "0123456789abcdef";
        out[written++] = '\\';
        out[written++] = 'x';
        out[written++] = digits[(unsigned char)text[i] >> 4];
        out[written++] = digits[(unsigned char)text[i] & 15];
    }
    return written;
}

static int append_quoted(struct log_line *line, const char *value)
{
    size_t limit = line->length + LOG_MAX_VALUE_BYTES;
    if (append(line, "\"", 1) != 0)
        return -1;
    const char *at = value;
    while (*at) {
        char piece[16];
        size_t taken, written = escape(piece, at, &taken);
        if (line->length + written > limit)
            return append(line, "...\"", 4);
        if (append(line, piece, written) != 0)
            return -1;
        at += taken;
    }
    return append(line, "\"", 1);
}

void log_line_begin(struct log_line *line, enum log_level level, const char *event)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    line->level = level;
    line->length = 0;
    char stamp[64];
    size_t length = strftime(stamp, sizeof stamp, "time=%Y-%m-%dT%H:%M:%S", &utc);
    int tail =
        snprintf(stamp + length, sizeof stamp - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
    append(line, stamp, length + (size_t)tail);
    append_pair(line, "level", LEVEL_NAMES[level]);
    append_pair(line, "event", event);
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    if (line->length == 0)
        return;
    if (is_bare(value) && strlen(value) <= LOG_MAX_VALUE_BYTES) {
        append_pair(line, key, value);
        return;
    }
    size_t before = line->length;
    if (append_key(line, key) != 0 || append_quoted(line, value) != 0)
        line->length = before;
}

void log_number(struct log_line *line, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    append_pair(line, key, text);
}

void log_milliseconds(struct log_line *line, const char *key, uint64_t nanoseconds)
{
    char text[32];
    uint64_t microseconds = nanoseconds / 1000;
    snprintf(text, sizeof text, "%llu.%03u", (unsigned long long)(microseconds / 1000),
             (unsigned)(microseconds % 1000));
    append_pair(line, key, text);
}

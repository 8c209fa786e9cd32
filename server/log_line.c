/* Log lines as text, logfmt or JSON, on the caller's stack.
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

/* Bytes that still fit, besides the end of the line and a mark before it (server/log.c). */
static size_t room(const struct log_line *line)
{
    return sizeof line->text - strlen("}\n<3>") - line->length;
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

static int append_text(struct log_line *line, const char *text)
{
    return append(line, text, strlen(text));
}

static int append_key(struct log_line *line, const char *key)
{
    bool json = line->format == LOG_JSON;
    if (append_text(line, json ? ",\"" : " ") != 0 || append_text(line, key) != 0)
        return -1;
    return append_text(line, json ? "\":" : "=");
}

/* Adds a pair; the value needs no escaping. */
static void append_pair(struct log_line *line, const char *key, const char *value)
{
    if (line->length == 0)
        return;
    size_t before = line->length;
    if (append_key(line, key) != 0 || append_text(line, value) != 0)
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

/* Room for an escaped four-byte sequence. */
enum { ESCAPED_BYTES = 32 };

/* What logfmt and JSON escape alike; NULL: nothing of it. */
static const char *shorthand(char c)
{
    return c == '\n'   ? "\\n"
           : c == '\r' ? "\\r"
           : c == '\t' ? "\\t"
           : c == '"'  ? "\\\""
           : c == '\\' ? "\\\\"
                       : NULL;
}

/* JSON escapes characters only: a byte that is none becomes the replacement character. `bytes` of a
 * control character: at most three. */
static size_t escape_json(char out[ESCAPED_BYTES], const char *text, size_t bytes)
{
    if (bytes == 0)
        return (size_t)snprintf(out, ESCAPED_BYTES, "%s", UTF8_REPLACEMENT);
    unsigned code = (unsigned char)text[0] & (bytes == 1 ? 0x7Fu : bytes == 2 ? 0x1Fu : 0x0Fu);
    for (size_t i = 1; i < bytes; i++)
        code = code << 6 | ((unsigned char)text[i] & 0x3Fu);
    return (size_t)snprintf(out, ESCAPED_BYTES, "\\u%04x", code);
}

static size_t escape_bytes(char out[ESCAPED_BYTES], const char *text, size_t count)
{
    size_t written = 0;
    for (size_t i = 0; i < count; i++)
        written += (size_t)snprintf(out + written, ESCAPED_BYTES - written, "\\x%02x",
                                    (unsigned)(unsigned char)text[i]);
    return written;
}

/* Writes the character at `text`, escaped for a place between quotes. Returns the bytes written and
 * puts the bytes read in `taken`. */
static size_t escape(enum log_format format, char out[ESCAPED_BYTES], const char *text,
                     size_t *taken)
{
    size_t bytes = utf8_character(text);
    const char *pair = shorthand(*text);
    *taken = bytes ? bytes : 1;
    if (pair) {
        memcpy(out, pair, 2);
        return 2;
    }
    if (bytes && !utf8_is_control(text)) {
        memcpy(out, text, bytes);
        return bytes;
    }
    return format == LOG_JSON ? escape_json(out, text, bytes) : escape_bytes(out, text, *taken);
}

static int append_quoted(struct log_line *line, const char *value)
{
    size_t limit = line->length + LOG_MAX_VALUE_BYTES;
    if (append(line, "\"", 1) != 0)
        return -1;
    const char *at = value;
    while (*at) {
        char piece[ESCAPED_BYTES];
        size_t taken, written = escape(line->format, piece, at, &taken);
        if (line->length + written > limit)
            return append(line, "...\"", 4);
        if (append(line, piece, written) != 0)
            return -1;
        at += taken;
    }
    return append(line, "\"", 1);
}

static void append_stamp(struct log_line *line)
{
    struct timespec now;
    struct tm utc;
    char stamp[48];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(stamp + length, sizeof stamp - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
    append_text(line, line->format == LOG_JSON ? "{\"time\":\"" : "time=");
    append_text(line, stamp);
    append_text(line, line->format == LOG_JSON ? "\"" : "");
}

void log_line_begin(struct log_line *line, enum log_format format, enum log_level level,
                    const char *event)
{
    line->format = format;
    line->level = level;
    line->length = 0;
    append_stamp(line);
    log_text(line, "level", LEVEL_NAMES[level]);
    log_text(line, "event", event);
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    if (line->length == 0)
        return;
    if (line->format == LOG_LOGFMT && is_bare(value) && strlen(value) <= LOG_MAX_VALUE_BYTES) {
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

void log_line_end(struct log_line *line)
{
    if (line->length == 0)
        return;
    if (line->format == LOG_JSON)
        line->text[line->length++] = '}';
    line->text[line->length++] = '\n';
}

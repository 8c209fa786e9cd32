/* Cuts a connection's bytes into requests. */
#include "server/http/http_framing.h"

#include <string.h>

#include "core/text.h"

void http_framing_init(struct http_framing *framing, size_t max_body_bytes)
{
    *framing = (struct http_framing){.max_body_bytes = max_body_bytes};
}

size_t http_framing_body_ahead(const struct http_framing *framing)
{
    bool in_body = framing->state == FRAMING_BODY;
    return in_body ? (size_t)framing->remaining : 0; /* at most max_body_bytes */
}

void http_framing_skip_body(struct http_framing *framing, size_t bytes)
{
    framing->remaining -= bytes;
}

static size_t smaller(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

/* ---- the header ---- */

/* Skips empty lines before a request (RFC 9112, section 2.2): some clients end a body with one. A
 * lone CR or LF is left to the header's reader, which refuses it. */
static void skip_empty_lines(struct http_framing *framing, const char *bytes, size_t length,
                             size_t *taken)
{
    while (length - *taken >= 2 && bytes[*taken] == '\r' && bytes[*taken + 1] == '\n')
        *taken += 2;
    bool undecided = length - *taken == 1 && bytes[*taken] == '\r';
    if (*taken < length && !undecided)
        framing->state = FRAMING_HEAD;
}

static enum http_part read_head(struct http_framing *framing, const char *bytes, size_t length,
                                size_t *taken, struct error *err)
{
    struct http_head *head = &framing->head;
    int whole = http_head_read(head, bytes, length, err);
    if (whole == 0)
        return HTTP_MORE;
    if (whole > 0 && head->content_length > framing->max_body_bytes)
        whole = error_set(err, ERROR_TOO_LARGE, "the body has %llu bytes; at most %zu are accepted",
                          (unsigned long long)head->content_length, framing->max_body_bytes);
    if (whole < 0)
        return HTTP_REFUSED;
    *taken = head->length;
    framing->remaining = head->content_length;
    framing->state = head->chunked ? FRAMING_CHUNK_SIZE : FRAMING_BODY;
    return HTTP_HEADER;
}

/* ---- the body ---- */

static enum http_part read_body(struct http_framing *framing, size_t length, size_t *taken)
{
    *taken = smaller(framing->remaining, length);
    framing->remaining -= *taken;
    return *taken ? HTTP_BODY : HTTP_MORE;
}

/* A chunk size is hexadecimal digits, then nothing or an extension that begins with ';'. */
static int read_chunk_size(struct http_framing *framing, const char *line, size_t length,
                           struct error *err)
{
    uint64_t size = 0;
    size_t digits = 0;
    for (; digits < length && text_hex_digit(line[digits]) >= 0; digits++) {
        if (__builtin_mul_overflow(size, 16, &size))
            return error_set(
                err, ERROR_TOO_LARGE,
                "a chunk size of more than 64 bits; the body may have at most %zu bytes",
                framing->max_body_bytes);
        size += (uint64_t)text_hex_digit(line[digits]);
    }
    if (digits == 0 || (digits < length && line[digits] != ';'))
        return error_set(err, ERROR_INVALID,
                         "malformed chunk size, expected hexadecimal digits, then CRLF or ';'");
    if (size > framing->max_body_bytes - framing->body_bytes)
        return error_set(err, ERROR_TOO_LARGE,
                         "the body is longer than the %zu bytes that are accepted",
                         framing->max_body_bytes);
    framing->remaining = size;
    framing->body_bytes += size;
    return 0;
}

/* Reads a line of at most `limit` bytes: 1 when bytes[0, *taken) are one with its CRLF. */
static int take_line(struct http_framing *framing, const char *bytes, size_t length, size_t limit,
                     size_t *taken, struct error *err)
{
    int found = http_line_read(&framing->line, bytes, smaller(limit, length), err);
    if (found == 0 && length >= limit)
        return error_set(err, ERROR_INVALID,
                         "chunk-size line or trailer fields longer than %zu bytes", limit);
    if (found > 0) {
        *taken = framing->line.seen;
        framing->line = (struct http_line){0};
    }
    return found;
}

static enum http_part read_chunk_line(struct http_framing *framing, const char *bytes,
                                      size_t length, size_t *taken, struct error *err)
{
    int found = take_line(framing, bytes, length, HTTP_CHUNK_LINE_MAX_BYTES, taken, err);
    if (found > 0 && read_chunk_size(framing, bytes, *taken - strlen("\r\n"), err) != 0)
        found = -1;
    if (found > 0)
        framing->state = framing->remaining ? FRAMING_CHUNK : FRAMING_TRAILER;
    return found < 0 ? HTTP_REFUSED : HTTP_MORE;
}

static enum http_part read_chunk_end(struct http_framing *framing, const char *bytes, size_t length,
                                     size_t *taken, struct error *err)
{
    const char *end = "\r\n";
    if (memcmp(bytes, end, smaller(strlen(end), length)) != 0) {
        error_set(err, ERROR_INVALID, "no CRLF behind a chunk");
        return HTTP_REFUSED;
    }
    if (length >= strlen(end)) {
        *taken = strlen(end);
        framing->state = FRAMING_CHUNK_SIZE;
    }
    return HTTP_MORE;
}

static enum http_part read_trailer(struct http_framing *framing, const char *bytes, size_t length,
                                   size_t *taken, struct error *err)
{
    size_t limit = HTTP_TRAILER_MAX_BYTES - framing->trailer_bytes;
    int found = take_line(framing, bytes, length, limit, taken, err);
    if (found > 0 && *taken == strlen("\r\n"))
        framing->state = FRAMING_END;
    else if (found > 0)
        found = http_head_check_trailer(bytes, *taken - strlen("\r\n"), err) == 0 ? 1 : -1;
    framing->trailer_bytes += *taken;
    return found < 0 ? HTTP_REFUSED : HTTP_MORE;
}

/* ---- all of it ---- */

static void step_over_empty(struct http_framing *framing)
{
    if (framing->remaining > 0)
        return;
    if (framing->state == FRAMING_BODY)
        framing->state = FRAMING_END;
    else if (framing->state == FRAMING_CHUNK)
        framing->state = FRAMING_CHUNK_END;
}

enum http_part http_framing_read(struct http_framing *framing, const char *bytes, size_t length,
                                 size_t *taken, struct error *err)
{
    *taken = 0;
    step_over_empty(framing);
    switch (framing->state) {
    case FRAMING_BEFORE:
        skip_empty_lines(framing, bytes, length, taken);
        return framing->state == FRAMING_HEAD && *taken == 0
                   ? read_head(framing, bytes, length, taken, err)
                   : HTTP_MORE;
    case FRAMING_HEAD:
        return read_head(framing, bytes, length, taken, err);
    case FRAMING_BODY:
    case FRAMING_CHUNK:
        return read_body(framing, length, taken);
    case FRAMING_CHUNK_SIZE:
        return read_chunk_line(framing, bytes, length, taken, err);
    case FRAMING_CHUNK_END:
        return read_chunk_end(framing, bytes, length, taken, err);
    case FRAMING_TRAILER:
        return read_trailer(framing, bytes, length, taken, err);
    case FRAMING_END:
        return HTTP_END;
    }
    return HTTP_END;
}

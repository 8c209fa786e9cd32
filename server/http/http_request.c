/* A request's header fields and query, read when a handler asks for them, in place in the
 * exchange's copy of the header. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "server/http/http_internal.h"
#include "server/http/http_percent.h"

/* ---- the request line ---- */

/* NUL-terminates the text in place; a delimiter stands behind it. */
static const char *ended(char *header, struct http_text text)
{
    header[text.at + text.length] = '\0';
    return header + text.at;
}

static enum http_method method_of(const char *method)
{
    return !strcmp(method, "GET")      ? HTTP_GET
           : !strcmp(method, "HEAD")   ? HTTP_HEAD
           : !strcmp(method, "POST")   ? HTTP_POST
           : !strcmp(method, "DELETE") ? HTTP_DELETE
                                       : HTTP_OTHER;
}

void exchange_describe_request(struct http_exchange *exchange, const struct http_head *head)
{
    struct exchange *public = &exchange->public;
    char *header = exchange->header;
    public->method_text = ended(header, (struct http_text){0, head->method_length});
    public->method = method_of(public->method_text);
    public->path = head->path.at ? ended(header, head->path) : head->method_length ? "/" : "";
    exchange->query = head->query;
}

/* ---- header fields ---- */

static bool is_padding(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\0';
}

/* The value of a line "name: value\r\n" whose '\n' is at `end`, NUL-terminated in place. */
static const char *value_of(char *colon, char *end)
{
    char *value = colon + 1;
    while (end > value && is_padding(end[-1]))
        end--;
    while (value < end && is_padding(*value))
        value++;
    *end = '\0';
    return value;
}

const char *exchange_header_in(const struct exchange *public, const char *name)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    if (public->edge)
        return public->edge->header_in(public, name);
    char *end = exchange->header + exchange->header_length;
    char *line = memchr(exchange->header, '\n', exchange->header_length);
    size_t length = strlen(name);
    while (line && ++line < end) {
        char *line_end = memchr(line, '\n', (size_t)(end - line));
        if (line_end && (size_t)(line_end - line) > length && line[length] == ':' &&
            !strncasecmp(line, name, length))
            return value_of(line + length, line_end);
        line = line_end;
    }
    return NULL;
}

/* ---- the query ---- */

/* In a query a plus is a blank. */
static int decode_parameter(const char *name, char *from, char *to, char *text, size_t size,
                            struct error *err)
{
    for (char *at = from; at < to; at++)
        if (*at == '+')
            *at = ' ';
    if (http_percent_decode(from, to, text, size))
        return 1;
    return error_set(err, ERROR_INVALID,
                     "query parameter %.40s: expected at most %zu bytes, percent-encoded", name,
                     size - 1);
}

int exchange_query(const struct exchange *public, const char *name, char *text, size_t size,
                   struct error *err)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    if (public->edge)
        return 0;
    char *at = exchange->header + exchange->query.at, *end = at + exchange->query.length;
    size_t length = strlen(name);
    while (at < end) {
        char *next = memchr(at, '&', (size_t)(end - at));
        char *to = next ? next : end;
        if ((size_t)(to - at) >= length && !memcmp(at, name, length)) {
            if (at + length == to)
                return decode_parameter(name, to, to, text, size, err);
            if (at[length] == '=')
                return decode_parameter(name, at + length + 1, to, text, size, err);
        }
        at = next ? next + 1 : end;
    }
    return 0;
}

/* Its place in the list; behind the end if it is not there. */
static size_t place_of(const char *const *names, const char *name, size_t length)
{
    size_t place = 0;
    while (names[place] &&
           (strlen(names[place]) != length || memcmp(names[place], name, length) != 0))
        place++;
    return place;
}

static int refuse_name(const char *const *names, const char *name, size_t length, struct error *err)
{
    char expected[128] = "";
    size_t used = 0;
    for (size_t i = 0; names[i] && used < sizeof expected; i++)
        used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                 i == 0         ? ""
                                 : names[i + 1] ? ", "
                                                : " or ",
                                 names[i]);
    return error_set(err, ERROR_INVALID, "unknown query parameter '%.*s', expected %s",
                     length < 40 ? (int)length : 40, name, *expected ? expected : "none");
}

int exchange_query_names(const struct exchange *public, const char *const *names, struct error *err)
{
    const struct http_exchange *exchange = (const struct http_exchange *)public;
    if (public->edge)
        return 0;
    const char *at = exchange->header + exchange->query.at, *end = at + exchange->query.length;
    for (unsigned seen = 0; at < end;) {
        const char *next = memchr(at, '&', (size_t)(end - at));
        const char *to = next ? next : end;
        const char *equals = memchr(at, '=', (size_t)(to - at));
        const size_t length = (size_t)((equals ? equals : to) - at);
        const size_t place = place_of(names, at, length);
        if (to > at && !names[place])
            return refuse_name(names, at, length, err);
        if (to > at && (seen & 1u << place))
            return error_set(err, ERROR_INVALID, "query parameter %s is given twice", names[place]);
        seen |= to > at ? 1u << place : 0;
        at = next ? next + 1 : end;
    }
    return 0;
}

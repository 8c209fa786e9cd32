/* Reads a request's header line by line. */
#include "server/http/http_head.h"

#include <string.h>
#include <strings.h>

#include "core/text.h"

static const char *const FIELD_NAMES[HTTP_FIELD_COUNT] = {
    [HTTP_FIELD_HOST] = "Host",
    [HTTP_FIELD_CONTENT_LENGTH] = "Content-Length",
    [HTTP_FIELD_TRANSFER_ENCODING] = "Transfer-Encoding",
    [HTTP_FIELD_CONTENT_ENCODING] = "Content-Encoding",
    [HTTP_FIELD_INFERENCE_HEADER_LENGTH] = "Inference-Header-Content-Length",
};

/* Bytes that are being read. */
struct span {
    const char *at, *end;
};

static size_t span_length(struct span span)
{
    return (size_t)(span.end - span.at);
}

static bool is_word(struct span span, const char *word)
{
    return span_length(span) == strlen(word) && !strncasecmp(span.at, word, strlen(word));
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct span trimmed(struct span span)
{
    while (span.at < span.end && is_blank(*span.at))
        span.at++;
    while (span.at < span.end && is_blank(span.end[-1]))
        span.end--;
    return span;
}

/* A token (RFC 9110, section 5.6.2), as methods and field names are. A blank before the colon is
 * not part of one: one side would honour "Transfer-Encoding :" and the other ignore it. */
static bool is_token(struct span span)
{
    static const bool ALLOWED[256] = {
        ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['!'] = true,
        ['#'] = true,         ['$'] = true,         ['%'] = true,         ['&'] = true,
        ['\''] = true,        ['*'] = true,         ['+'] = true,         ['-'] = true,
        ['.'] = true,         ['^'] = true,         ['_'] = true,         ['`'] = true,
        ['|'] = true,         ['~'] = true,
    };
    for (const char *at = span.at; at < span.end; at++)
        if (!ALLOWED[(unsigned char)*at])
            return false;
    return span.at < span.end;
}

/* ---- the request line ---- */

/* Of "http://host/path" (RFC 9112, section 3.2.2) only the path counts; any host is ours. */
static int skip_host(struct span *target, struct error *err)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t length = strlen(schemes[i]);
        if (span_length(*target) <= length || strncasecmp(target->at, schemes[i], length) != 0)
            continue;
        const char *host = target->at + length;
        target->at = host;
        while (target->at < target->end && *target->at != '/' && *target->at != '?')
            target->at++;
        if (target->at > host)
            return 0;
    }
    return error_set(err, ERROR_INVALID,
                     "the request target must begin with '/' or http://host, or be '*'");
}

static int read_target(struct http_head *head, const char *bytes, struct span target,
                       struct error *err)
{
    bool asterisk = span_length(target) == 1 && *target.at == '*';
    if (target.at == target.end)
        return error_set(err, ERROR_INVALID, "the request target is empty");
    if (memchr(target.at, '\t', span_length(target)))
        return error_set(err, ERROR_INVALID,
                         "the request target has a tab; expected it percent-encoded, %%09");
    if (*target.at != '/' && !asterisk && skip_host(&target, err) != 0)
        return -1;
    const char *mark = memchr(target.at, '?', span_length(target));
    if (mark)
        head->query =
            (struct http_text){(uint32_t)(mark + 1 - bytes), (uint32_t)(target.end - mark - 1)};
    target.end = mark ? mark : target.end;
    if (target.at < target.end)
        head->path =
            (struct http_text){(uint32_t)(target.at - bytes), (uint32_t)span_length(target)};
    return 0;
}

static int read_version(struct http_head *head, struct span version, struct error *err)
{
    const char *v = version.at;
    if (span_length(version) != strlen("HTTP/1.1") || memcmp(v, "HTTP/", strlen("HTTP/")) != 0 ||
        !is_digit(v[5]) || v[6] != '.' || !is_digit(v[7]))
        return error_set(err, ERROR_INVALID,
                         "malformed request line, expected: METHOD TARGET HTTP/1.1");
    if (v[5] != '1')
        return error_set(err, ERROR_VERSION,
                         "the request is HTTP/%c.%c, expected HTTP/1.0 or HTTP/1.1", v[5], v[7]);
    head->http_1_0 = v[7] == '0';
    return 0;
}

/* There must be exactly two blanks: "GET /a HTTP/1.1 x HTTP/1.1" has two readings. */
static int read_request_line(struct http_head *head, const char *bytes, struct span line,
                             struct error *err)
{
    const char *first = memchr(line.at, ' ', span_length(line));
    const char *second = first ? memchr(first + 1, ' ', (size_t)(line.end - first - 1)) : NULL;
    struct span method = {line.at, first ? first : line.end};
    if (!is_token(method) || !second)
        return error_set(err, ERROR_INVALID,
                         "malformed request line, expected: METHOD TARGET HTTP/1.1");
    if (read_version(head, (struct span){second + 1, line.end}, err) != 0 ||
        read_target(head, bytes, (struct span){first + 1, second}, err) != 0)
        return -1;
    head->method_length = (uint32_t)span_length(method);
    return 0;
}

/* ---- fields ---- */

/* Splits "name: value" and trims the value (RFC 9110, section 5.5). */
static int split_field(struct span line, struct span *name, struct span *value, struct error *err)
{
    if (is_blank(*line.at))
        return error_set(err, ERROR_INVALID,
                         "a header line begins with a blank; folded lines are not accepted");
    const char *colon = memchr(line.at, ':', span_length(line));
    *name = (struct span){line.at, colon ? colon : line.end};
    if (!colon || !is_token(*name))
        return error_set(err, ERROR_INVALID, "malformed header line, expected NAME: VALUE");
    *value = trimmed((struct span){colon + 1, line.end});
    return 0;
}

static int field_index(struct span name)
{
    for (int i = 0; i < HTTP_FIELD_COUNT; i++)
        if (is_word(name, FIELD_NAMES[i]))
            return i;
    return -1;
}

/* Connection and Expect are lists, in one field or several. */
static bool list_has(struct span list, const char *word)
{
    while (list.at < list.end) {
        const char *comma = memchr(list.at, ',', span_length(list));
        struct span entry = {list.at, comma ? comma : list.end};
        if (is_word(trimmed(entry), word))
            return true;
        list.at = comma ? comma + 1 : list.end;
    }
    return false;
}

static int read_field(struct http_head *head, const char *bytes, struct span line,
                      struct error *err)
{
    struct span name, value;
    if (split_field(line, &name, &value, err) != 0)
        return -1;
    if (is_word(name, "Connection")) {
        head->wants_close |= list_has(value, "close");
        head->wants_keep_alive |= list_has(value, "keep-alive");
    } else if (is_word(name, "Expect")) {
        head->expects_continue |= list_has(value, "100-continue");
    }
    int field = field_index(name);
    if (field < 0)
        return 0;
    if (head->fields[field].at)
        return error_set(err, ERROR_INVALID, "more than one %s header field, expected at most one",
                         FIELD_NAMES[field]);
    head->fields[field] =
        (struct http_text){(uint32_t)(value.at - bytes), (uint32_t)span_length(value)};
    return 0;
}

int http_head_check_trailer(const char *line, size_t length, struct error *err)
{
    struct span name, value;
    if (split_field((struct span){line, line + length}, &name, &value, err) != 0)
        return -1;
    int field = field_index(name);
    return field < 0 ? 0
                     : error_set(err, ERROR_INVALID, "%s behind the body, expected in the header",
                                 FIELD_NAMES[field]);
}

/* ---- what the fields say together ---- */

static struct span value_of(const struct http_head *head, const char *bytes, enum http_field field)
{
    const char *at = bytes + head->fields[field].at;
    return (struct span){at, at + head->fields[field].length};
}

/* A host (RFC 3986, section 3.2.2) and a port. Two hosts that a proxy has joined by ", " are not
 * one. */
static int check_host(const struct http_head *head, const char *bytes, struct error *err)
{
    static const char punctuation[] = "-._~%!$&'()*+,;=:[]";
    struct span host = value_of(head, bytes, HTTP_FIELD_HOST);
    if (!head->fields[HTTP_FIELD_HOST].at)
        return head->http_1_0 ? 0 : error_set(err, ERROR_INVALID, "expected one Host header field");
    for (; host.at < host.end; host.at++) {
        char letter = (char)(*host.at | 0x20);
        if (!is_digit(*host.at) && !(letter >= 'a' && letter <= 'z') &&
            !strchr(punctuation, *host.at))
            return error_set(
                err, ERROR_INVALID,
                "malformed Host header field, expected a host name and perhaps a port");
    }
    return 0;
}

/* Digits only: no sign, no list, no blanks. The line's CR ends them. */
static int read_content_length(struct http_head *head, struct span value, struct error *err)
{
    const char *end = text_whole_number(value.at, &head->content_length);
    if (!end && is_digit(*value.at))
        return error_set(err, ERROR_TOO_LARGE, "Content-Length is larger than is accepted");
    if (end != value.end)
        return error_set(err, ERROR_INVALID, "malformed Content-Length, expected a whole number");
    return 0;
}

static int check_body(struct http_head *head, const char *bytes, struct error *err)
{
    bool length = head->fields[HTTP_FIELD_CONTENT_LENGTH].at;
    if (!head->fields[HTTP_FIELD_TRANSFER_ENCODING].at)
        return length ? read_content_length(head, value_of(head, bytes, HTTP_FIELD_CONTENT_LENGTH),
                                            err)
                      : 0;
    if (length)
        return error_set(err, ERROR_INVALID,
                         "Transfer-Encoding and Content-Length together, expected one of them");
    if (head->http_1_0)
        return error_set(err, ERROR_INVALID,
                         "Transfer-Encoding in an HTTP/1.0 request, expected Content-Length");
    head->chunked = is_word(value_of(head, bytes, HTTP_FIELD_TRANSFER_ENCODING), "chunked");
    return head->chunked ? 0
                         : error_set(err, ERROR_UNSUPPORTED,
                                     "unsupported Transfer-Encoding, expected chunked");
}

/* ---- all of it ---- */

static int read_line(struct http_head *head, const char *bytes, struct span line, struct error *err)
{
    if (head->method_length == 0)
        return read_request_line(head, bytes, line, err);
    if (line.at < line.end)
        return read_field(head, bytes, line, err);
    head->length = head->line.seen;
    return check_host(head, bytes, err) != 0 || check_body(head, bytes, err) != 0 ? -1 : 0;
}

static int too_long(const struct http_head *head, struct error *err)
{
    if (head->method_length == 0)
        return error_set(err, ERROR_TARGET_TOO_LONG, "the request line is longer than %d bytes",
                         HTTP_HEAD_MAX_BYTES);
    return error_set(err, ERROR_HEADER_TOO_LARGE, "the request header is longer than %d bytes",
                     HTTP_HEAD_MAX_BYTES);
}

int http_head_read(struct http_head *head, const char *bytes, size_t length, struct error *err)
{
    size_t limit = length < HTTP_HEAD_MAX_BYTES ? length : HTTP_HEAD_MAX_BYTES;
    while (!head->length) {
        int found = http_line_read(&head->line, bytes, limit, err);
        if (found < 0)
            return -1;
        if (!found)
            return limit < HTTP_HEAD_MAX_BYTES ? 0 : too_long(head, err);
        struct span line = {bytes + head->line.begin, bytes + head->line.seen - strlen("\r\n")};
        if (read_line(head, bytes, line, err) != 0)
            return -1;
        head->line.begin = head->line.seen;
    }
    return 1;
}

/* The rules of a request header; see http_head.h. */
#include "server/http_head.h"

#include <string.h>
#include <strings.h>

/* RFC 9110, section 5.6.2: what a field name is made of. A blank before the colon is not in it, and
 * "Transfer-Encoding :" is the classic name that one side honours and the other skips. */
static bool is_token(const char *name, size_t length)
{
    static const char punctuation[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < length; i++) {
        unsigned char at = (unsigned char)name[i];
        bool alphanumeric = (at >= '0' && at <= '9') || ((at | 0x20) >= 'a' && (at | 0x20) <= 'z');
        if (!alphanumeric && !(at && strchr(punctuation, at)))
            return false;
    }
    return length > 0;
}

/* "GET /a HTTP/1.1 x HTTP/1.1" has two readings. */
bool http_head_is_target(const char *target)
{
    for (const char *at = target; *at; at++) {
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return false;
    }
    return *target != '\0';
}

/* Digits only: no sign, no list, no blanks. */
static uint64_t read_length(const char *value)
{
    uint64_t length = 0;
    for (const char *at = value; *at; at++) {
        if (*at < '0' || *at > '9' || __builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, (uint64_t)(*at - '0'), &length))
            return UINT64_MAX;
    }
    return *value ? length : UINT64_MAX;
}

void http_head_init(struct http_head *head, const char *version, bool good_target)
{
    *head = (struct http_head){.http_1_0 = !strcmp(version, "HTTP/1.0"), .malformed = !good_target};
}

static bool is_name(const char *name, size_t length, const char *expected)
{
    return length == strlen(expected) && !strncasecmp(name, expected, length);
}

void http_head_field(struct http_head *head, const char *name, size_t name_length,
                     const char *value, size_t value_length)
{
    if (!is_token(name, name_length) || memchr(value, '\r', value_length))
        head->malformed = true;
    else if (is_name(name, name_length, "Host"))
        head->hosts++;
    else if (is_name(name, name_length, "Content-Length")) {
        head->content_lengths++;
        head->content_length = read_length(value);
    } else if (is_name(name, name_length, "Transfer-Encoding")) {
        head->transfer_encodings++;
        head->chunked = !strcasecmp(value, "chunked");
    } else if (is_name(name, name_length, "Content-Encoding"))
        head->content_encoding = value;
    else if (is_name(name, name_length, "Inference-Header-Content-Length"))
        head->inference_header_length = value;
}

static int check_length(const struct http_head *head, size_t max_body_bytes, struct error *err)
{
    if (head->content_lengths > 1)
        return error_set(err, ERROR_INVALID, "more than one Content-Length");
    if (head->content_lengths == 1 && head->content_length == UINT64_MAX)
        return error_set(err, ERROR_INVALID, "Content-Length is not a whole number");
    if (head->content_length > max_body_bytes)
        return error_set(err, ERROR_TOO_LARGE, "the body has %llu bytes; at most %zu are accepted",
                         (unsigned long long)head->content_length, max_body_bytes);
    return 0;
}

static int check_transfer_encoding(const struct http_head *head, struct error *err)
{
    if (head->transfer_encodings == 0)
        return 0;
    if (head->content_lengths > 0)
        return error_set(err, ERROR_INVALID, "Transfer-Encoding and Content-Length together");
    if (head->http_1_0)
        return error_set(err, ERROR_INVALID, "Transfer-Encoding in an HTTP/1.0 request");
    if (head->transfer_encodings > 1 || !head->chunked)
        return error_set(err, ERROR_UNSUPPORTED, "a Transfer-Encoding other than chunked");
    return 0;
}

int http_head_check(const struct http_head *head, size_t max_body_bytes, struct error *err)
{
    if (head->malformed)
        return error_set(err, ERROR_INVALID, "malformed request target or header field");
    if (head->hosts > 1 || (head->hosts == 0 && !head->http_1_0))
        return error_set(err, ERROR_INVALID, "expected one Host header field, got %u", head->hosts);
    if (check_transfer_encoding(head, err) != 0)
        return -1;
    return check_length(head, max_body_bytes, err);
}

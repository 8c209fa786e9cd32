/* Exchanges apart from libmicrohttpd: their life, their report, error answers, and refusals, which
 * we send ourselves. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "proto/json.h"
#include "server/http_internal.h"

struct http_exchange *exchange_new(struct connection *connection, const char *target)
{
    size_t path_length = strcspn(target, "?");
    struct http_exchange *exchange = xcalloc(1, sizeof *exchange + path_length + 1);
    memcpy(exchange->path, target, path_length);
    exchange->good_target = http_head_is_target(target);
    exchange->http = connection->http;
    exchange->connection = connection;
    exchange->received_ms = uv_now(connection->http->loop);
    exchange->public.received_ns = uv_hrtime();
    exchange->public.method = HTTP_OTHER;
    exchange->public.method_text = exchange->method;
    exchange->public.path = exchange->path;
    connection->exchange = exchange;
    return exchange;
}

static void report(struct http_exchange *exchange)
{
    struct http_callbacks *callbacks = &exchange->http->callbacks;
    if (exchange->reported)
        return;
    exchange->reported = true;
    callbacks->on_finished(&exchange->public, uv_hrtime() - exchange->public.received_ns,
                           callbacks->context);
}

void exchange_free(struct http_exchange *exchange)
{
    report(exchange);
    buffer_close(&exchange->body);
    free((char *)exchange->public.error_text);
    free(exchange);
}

void exchange_tell_gone(struct http_exchange *exchange)
{
    void (*on_disconnect)(struct exchange * exchange) = exchange->public.on_disconnect;
    exchange->public.on_disconnect = NULL;
    if (on_disconnect)
        on_disconnect(&exchange->public);
}

/* --- the request ----------------------------------------------------------- */

static void set_method(struct http_exchange *exchange, const char *method)
{
    snprintf(exchange->method, sizeof exchange->method, "%s", method);
    exchange->public.method = !strcmp(method, "GET")    ? HTTP_GET
                              : !strcmp(method, "HEAD") ? HTTP_HEAD
                              : !strcmp(method, "POST") ? HTTP_POST
                                                        : HTTP_OTHER;
}

static const char *keep_field(char *copy, size_t bytes, const char *value)
{
    if (!value)
        return NULL;
    snprintf(copy, bytes, "%s", value);
    return copy;
}

/* Memory for a declared length is taken at once, so that no body is ever copied; the kernel backs
 * it only as the bytes come. */
static int prepare_body(struct http_exchange *exchange, const struct http_head *head,
                        struct error *err)
{
    size_t limit = head->chunked ? exchange->http->options.max_body_bytes : head->content_length;
    buffer_init(&exchange->body, limit);
    if (head->content_length > 0 && !buffer_reserve(&exchange->body, limit))
        return error_set(err, ERROR_UNAVAILABLE, "no memory for a body of %zu bytes", limit);
    return 0;
}

void exchange_accept_header(struct http_exchange *exchange, const char *method,
                            const struct http_head *head)
{
    struct error err = ERROR_INIT;
    set_method(exchange, method);
    if (http_head_check(head, exchange->http->options.max_body_bytes, &err) != 0 ||
        prepare_body(exchange, head, &err) != 0) {
        http_refuse(exchange->connection, error_http_status(err.code), err.text);
        return;
    }
    exchange->public.content_encoding = keep_field(
        exchange->content_encoding, sizeof exchange->content_encoding, head->content_encoding);
    exchange->public.inference_header_length =
        keep_field(exchange->inference_header_length, sizeof exchange->inference_header_length,
                   head->inference_header_length);
    connection_enter(exchange->connection, PHASE_RECEIVING, exchange->received_ms);
}

void exchange_accept_body(struct http_exchange *exchange, const char *data, size_t size)
{
    struct buffer *body = &exchange->body;
    struct error err = ERROR_INIT;
    bool fits = size <= body->limit - body->length;
    buffer_append(body, data, size);
    if (!fits)
        error_set(&err, ERROR_TOO_LARGE, "the body is longer than the %zu bytes accepted",
                  body->limit);
    else if (body->failed)
        error_set(&err, ERROR_UNAVAILABLE, "no memory for the body");
    if (err.code != ERROR_NONE)
        http_refuse(exchange->connection, error_http_status(err.code), err.text);
}

/* --- errors ---------------------------------------------------------------- */

void exchange_set_error(struct http_exchange *exchange, const char *text)
{
    free((char *)exchange->public.error_text);
    exchange->public.error_text = xstrdup(text);
}

void exchange_header(struct exchange *exchange, const char *name, const char *value)
{
    assert(exchange->reply_header_count < HTTP_MAX_REPLY_HEADERS);
    struct http_header *header = &exchange->reply_headers[exchange->reply_header_count++];
    header->name = name;
    snprintf(header->value, sizeof header->value, "%s", value);
}

void exchange_reply_error(struct exchange *exchange, const struct error *err)
{
    struct buffer body;
    buffer_init(&body, HTTP_ERROR_MAX_BYTES);
    exchange_set_error((struct http_exchange *)exchange, err->text);
    if (err->code == ERROR_OVERLOADED || err->code == ERROR_UNAVAILABLE)
        exchange_header(exchange, "Retry-After", "1");
    json_append_error(&body, err->text);
    exchange_reply(exchange, error_http_status(err->code), NULL, &body);
}

/* --- refusals -------------------------------------------------------------- */

static void append_header(struct buffer *answer, int status, size_t body_length)
{
    char date[40];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &utc));
    buffer_format(answer,
                  "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\n"
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                  status, http_reason(status), date, body_length);
}

/* One send: it fits every socket buffer, and a client that does not take it gets nothing. */
static void send_refusal(int fd, bool head_only, int status, const char *text)
{
    struct buffer body, answer;
    buffer_init(&body, HTTP_ERROR_MAX_BYTES);
    buffer_init(&answer, 2 * HTTP_ERROR_MAX_BYTES);
    json_append_error(&body, text);
    append_header(&answer, status, body.length);
    if (!head_only)
        buffer_append(&answer, body.data, body.length);
    if (!body.failed && !answer.failed)
        (void)!send(fd, answer.data, answer.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    buffer_close(&body);
    buffer_close(&answer);
}

void http_refuse(struct connection *connection, int status, const char *text)
{
    if (connection->phase == PHASE_LINGERING)
        return; /* one answer is enough */
    struct http_exchange *exchange = connection->exchange;
    bool nameless = !exchange; /* the request line itself was refused */
    if (nameless)
        exchange = exchange_new(connection, "");
    send_refusal(connection->fd, exchange->public.method == HTTP_HEAD, status, text);
    connection_enter(connection, PHASE_LINGERING, uv_now(connection->http->loop));
    exchange->public.status = status;
    exchange_set_error(exchange, text);
    buffer_close(&exchange->body);
    report(exchange);
    if (nameless) {
        connection->exchange = NULL;
        exchange_free(exchange);
    }
}

/* Exchanges: their life, their report, error answers, and refusals, which go straight to the
 * socket.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "core/memory.h"
#include "proto/coding.h"
#include "proto/json.h"
#include "server/http/http_internal.h"
#include "server/http/http_io.h"
#include "server/http/http_mhd.h"
#include "server/http/http_tls.h"

struct http_exchange *exchange_new(struct connection *connection, const char *header)
{
    const struct http_head *head = &connection->framing.head;
    size_t length = head->line.begin; /* of the whole lines so far */
    struct http_exchange *exchange = xcalloc(1, sizeof *exchange + length + 1);
    if (length > 0)
        memcpy(exchange->header, header, length);
    exchange->header_length = length;
    exchange->http = connection->http;
    exchange->connection = connection;
    memcpy(exchange->public.client, connection->client_text, sizeof exchange->public.client);
    exchange->public.certified = connection->tls && http_tls_is_certified(connection->tls);
    exchange->public.received_ns = connection->begun_ns;
    exchange_describe_request(exchange, head);
    return exchange;
}

static void report(struct http_exchange *exchange)
{
    struct http_callbacks *callbacks = &exchange->http->callbacks;
    callbacks->on_finished(&exchange->public, uv_hrtime() - exchange->public.received_ns,
                           callbacks->context);
}

void exchange_free(struct http_exchange *exchange)
{
    report(exchange);
    exchange_close_body(exchange);
    http_limits_return_answer(exchange->http->options.limits, exchange->answer_counted);
    buffer_close(&exchange->stream.bytes);
    free((char *)exchange->public.error_text);
    free(exchange->refusal);
    free(exchange);
}

void exchange_tell_gone(struct http_exchange *exchange)
{
    void (*on_disconnect)(struct exchange * exchange) = exchange->public.on_disconnect;
    exchange->public.on_disconnect = NULL;
    if (on_disconnect)
        on_disconnect(&exchange->public);
}

/* ---- the request's body ---- */

int exchange_ask_admission(struct http_exchange *exchange, bool awaits_body, struct error *err)
{
    const struct http_callbacks *callbacks = &exchange->http->callbacks;
    struct error refusal = ERROR_INIT;
    exchange->public.awaits_body = awaits_body;
    if (!callbacks->on_header ||
        callbacks->on_header(&exchange->public, callbacks->context, &refusal) == 0)
        return 0;
    if (awaits_body)
        return error_set(err, refusal.code, "%s", refusal.text);
    exchange->refusal = xmalloc(sizeof refusal);
    *exchange->refusal = refusal;
    return 0;
}

/* Memory for a declared length is allocated at once, so that no body is ever copied. The kernel
 * backs it only as the bytes come, and the limit of all bodies counts them only then: a client that
 * announces much and sends nothing keeps nobody out. */
int exchange_prepare_body(struct http_exchange *exchange, const struct http_framing *framing,
                          struct error *err)
{
    size_t length = (size_t)framing->head.content_length; /* at most max_body_bytes */
    size_t limit = framing->head.chunked ? framing->max_body_bytes : length;
    buffer_init(&exchange->body, limit);
    if (http_limits_check_body(exchange->http->options.limits, length, err) != 0)
        return -1;
    if (length > 0 && !buffer_reserve(&exchange->body, length))
        return error_set(err, ERROR_UNAVAILABLE, "no memory for a body of %zu bytes", length);
    return 0;
}

int exchange_count_body(struct http_exchange *exchange, size_t size, struct error *err)
{
    if (http_limits_take_body(exchange->http->options.limits, size, err) != 0)
        return -1;
    exchange->body_counted += size;
    return 0;
}

void exchange_close_body(struct http_exchange *exchange)
{
    buffer_close(&exchange->body);
    http_limits_return_body(exchange->http->options.limits, exchange->body_counted);
    exchange->body_counted = 0;
}

int exchange_accept_body(struct http_exchange *exchange, const char *data, size_t size,
                         struct error *err)
{
    if (exchange_count_body(exchange, size, err) != 0)
        return -1;
    buffer_append(&exchange->body, data, size);
    return exchange->body.failed ? error_set(err, ERROR_UNAVAILABLE, "no memory for the body") : 0;
}

int exchange_replace_body(struct exchange *public, struct buffer *body, struct error *err)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    exchange_close_body(exchange);
    public->body = NULL;
    public->body_length = 0;
    if (exchange_count_body(exchange, body->length, err) != 0)
        return -1;
    exchange->body = *body;
    *body = (struct buffer){0};
    public->body = exchange->body.data;
    public->body_length = exchange->body.length;
    return 0;
}

/* ---- answers ---- */

static void write_error(const struct http_exchange *exchange, const struct error *err,
                        struct buffer *body)
{
    const struct http_callbacks *callbacks = &exchange->http->callbacks;
    if (callbacks->write_error)
        callbacks->write_error(&exchange->public, err, body);
    else
        json_append_error(body, err->text);
}

/* Smaller ones fit a packet or two anyway; larger ones would keep the loop from others for more
 * than some ten milliseconds. */
enum { LEAST_COMPRESSED_BYTES = 1 << 10, MOST_COMPRESSED_BYTES = 1 << 20 };

/* Text compresses to a fraction of its size; binary tensors hardly do. */
static bool is_text(const char *content_type)
{
    return !content_type || strncmp(content_type, "text/", 5) == 0 ||
           strncmp(content_type, "application/json", 16) == 0 ||
           strncmp(content_type, "application/openmetrics-text", 28) == 0;
}

static void compress_body(struct exchange *exchange, const char *content_type, struct buffer *body)
{
    struct buffer compressed;
    if (body->length < LEAST_COMPRESSED_BYTES || body->length > MOST_COMPRESSED_BYTES ||
        !is_text(content_type))
        return;
    exchange_literal_header(exchange, "Vary", "Accept-Encoding");
    if (!coding_accepts_gzip(exchange_header_in(exchange, "Accept-Encoding")))
        return;
    buffer_init(&compressed, body->length);
    coding_compress(body->data, body->length, &compressed);
    if (compressed.failed) { /* it would not be smaller */
        buffer_close(&compressed);
        return;
    }
    exchange_literal_header(exchange, "Content-Encoding", "gzip");
    buffer_close(body);
    *body = compressed;
}

/* A client that takes its answer more slowly than this may be trying to exhaust memory. */
enum { SLOWEST_READER_BYTES_PER_MS = 16 };

void http_await_reader(struct http_exchange *exchange, size_t bytes)
{
    uint64_t allowance = bytes / SLOWEST_READER_BYTES_PER_MS;
    connection_enter(exchange->connection, PHASE_SENDING, uv_now(exchange->http->loop) + allowance);
}

void http_leave_handed_over(struct http_exchange *exchange)
{
    if (!exchange->suspended && exchange->connection)
        exchange->http->handed_over--;
}

static void end_hand_over(struct http_exchange *exchange)
{
    assert(exchange->handed);
    exchange->handed = false;
    exchange->http->unanswered--;
    http_leave_handed_over(exchange);
    exchange_close_body(exchange);
    exchange->public.body = NULL; /* its length stays, for the report */
}

/* Whether the answer can wait for its client. Health and metrics are told whatever others leave
 * unread. */
static int check_answer(const struct http_exchange *exchange, const struct buffer *body,
                        struct error *err)
{
    const struct http_callbacks *callbacks = &exchange->http->callbacks;
    struct error many = ERROR_INIT;
    if (body->failed)
        return error_set(err, ERROR_INTERNAL,
                         "the answer is larger than the server's limit or its memory");
    if (!exchange->connection ||
        http_limits_check_answer(exchange->http->options.limits, body->length, &many) == 0 ||
        callbacks->is_vital(&exchange->public, callbacks->context))
        return 0;
    *err = many;
    return -1;
}

void exchange_reply(struct exchange *public, int status, const char *content_type,
                    struct buffer *body)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    if (public->edge) {
        public->edge->reply(public, status, body);
        return;
    }
    end_hand_over(exchange);
    struct error err = ERROR_INIT;
    if (check_answer(exchange, body, &err) != 0) {
        buffer_close(body);
        buffer_init(body, HTTP_ERROR_MAX_BYTES);
        status = error_http_status(err.code);
        content_type = NULL;
        exchange_set_error(exchange, err.text);
        write_error(exchange, &err, body);
    }
    compress_body(public, content_type, body);
    public->status = status;
    char *bytes = buffer_steal(body, &public->reply_length);
    if (!exchange->connection) {
        http_want_run(exchange->http); /* draining may have waited for this one */
        free(bytes);
        exchange_free(exchange);
        return;
    }
    exchange->answer_counted =
        http_limits_take_answer(exchange->http->options.limits, public->reply_length);
    http_await_reader(exchange, public->reply_length);
    http_mhd_send(exchange, bytes, content_type);
}

/* ---- errors ---- */

bool http_status_is_temporary(int status)
{
    return status == 429 || status == 503;
}

unsigned exchange_retry_after(const struct exchange *exchange)
{
    return exchange->retry_after_s ? exchange->retry_after_s : 1;
}

void exchange_set_error(struct http_exchange *exchange, const char *text)
{
    exchange_note_error(&exchange->public, text);
}

void exchange_note_error(struct exchange *exchange, const char *text)
{
    free((char *)exchange->error_text);
    exchange->error_text = xstrdup(text);
}

static struct http_header *add_header(struct exchange *exchange, const char *name)
{
    assert(exchange->reply_header_count < HTTP_MAX_REPLY_HEADERS);
    struct http_header *header = &exchange->reply_headers[exchange->reply_header_count++];
    *header = (struct http_header){.name = name};
    return header;
}

void exchange_header(struct exchange *exchange, const char *name, const char *value)
{
    struct http_header *header = add_header(exchange, name);
    snprintf(header->value, sizeof header->value, "%s", value);
}

void exchange_literal_header(struct exchange *exchange, const char *name, const char *value)
{
    add_header(exchange, name)->literal = value;
}

void exchange_reply_error(struct exchange *public, const struct error *err)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    struct buffer body;
    if (public->edge) {
        public->edge->reply_error(public, err);
        return;
    }
    buffer_init(&body, HTTP_ERROR_MAX_BYTES);
    exchange_set_error(exchange, err->text);
    write_error(exchange, err, &body);
    exchange_reply(public, error_http_status(err->code), NULL, &body);
}

/* ---- refusals ---- */

static void append_header(struct buffer *answer, const struct exchange *exchange, int status,
                          size_t body_length)
{
    char date[40];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &utc));
    buffer_format(answer,
                  "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\n"
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                  status, http_mhd_reason(status), date, body_length);
    if (http_status_is_temporary(status))
        buffer_format(answer, "Retry-After: %u\r\n", exchange_retry_after(exchange));
    for (size_t i = 0; i < exchange->reply_header_count; i++) {
        const struct http_header *header = &exchange->reply_headers[i];
        buffer_format(answer, "%s: %s\r\n", header->name,
                      header->literal ? header->literal : header->value);
    }
    buffer_text(answer, "\r\n");
}

/* One send: a refusal fits every socket buffer, and a client that does not take it gets nothing. */
static void send_refusal(struct connection *connection, struct http_exchange *exchange,
                         const struct error *err)
{
    struct exchange *public = &exchange->public;
    struct buffer body, answer;
    buffer_init(&body, HTTP_ERROR_MAX_BYTES);
    buffer_init(&answer, 2 * HTTP_ERROR_MAX_BYTES);
    write_error(exchange, err, &body);
    append_header(&answer, public, error_http_status(err->code), body.length);
    if (public->method != HTTP_HEAD)
        buffer_append(&answer, body.data, body.length);
    public->reply_length = body.length;
    if (!body.failed && !answer.failed)
        (void)!connection_send_few(connection, answer.data, answer.length);
    connection_end(connection);
    buffer_close(&body);
    buffer_close(&answer);
}

void http_refuse(struct connection *connection, const struct error *err)
{
    struct http_exchange *exchange = connection->exchange;
    if (!exchange) /* the header itself is refused */
        exchange = exchange_new(connection, connection->held.data);
    connection->exchange = NULL;
    send_refusal(connection, exchange, err);
    connection_enter(connection, PHASE_LINGERING, uv_now(connection->http->loop));
    buffer_close(&connection->held);
    http_receive_next(connection);
    exchange->public.status = error_http_status(err->code);
    exchange->public.body_length = exchange->body.length;
    exchange_set_error(exchange, err->text);
    exchange_free(exchange);
}

/* Replaces the answering half of server/http/http.h without sockets: it keeps what a handler
 * answers. Included in one file of a test program, its definitions take the place of the library's.
 */
#ifndef TEST_FAKE_EXCHANGE_H
#define TEST_FAKE_EXCHANGE_H

#include "server/grpc/grpc.h"
#include "server/http/http.h"
#include "support.h"

static char reply_body[1 << 20];
static char reply_type[64];
static enum error_code reply_error;

void exchange_reply(struct exchange *exchange, int status, const char *content_type,
                    struct buffer *body)
{
    ck_assert_int_eq(exchange->status, 0); /* exactly one answer */
    exchange->status = status;
    exchange->reply_length = body->length;
    snprintf(reply_type, sizeof reply_type, "%s", content_type ? content_type : "application/json");
    ck_assert_uint_lt(body->length, sizeof reply_body);
    memcpy(reply_body, body->data, body->length);
    reply_body[body->length] = '\0';
    buffer_close(body);
}

void exchange_reply_error(struct exchange *exchange, const struct error *err)
{
    ck_assert_int_eq(exchange->status, 0);
    exchange->status = error_http_status(err->code);
    reply_error = err->code;
    snprintf(reply_body, sizeof reply_body, "%s", err->text);
}

void exchange_note_error(struct exchange *exchange, const char *text)
{
    (void)exchange, (void)text;
}

void exchange_header(struct exchange *exchange, const char *name, const char *value)
{
    ck_assert_uint_lt(exchange->reply_header_count, HTTP_MAX_REPLY_HEADERS);
    struct http_header *header = &exchange->reply_headers[exchange->reply_header_count++];
    header->name = name;
    snprintf(header->value, sizeof header->value, "%s", value);
}

void exchange_literal_header(struct exchange *exchange, const char *name, const char *value)
{
    ck_assert_uint_lt(exchange->reply_header_count, HTTP_MAX_REPLY_HEADERS);
    exchange->reply_headers[exchange->reply_header_count++] =
        (struct http_header){.name = name, .literal = value};
}

/* Nothing here answers in parts. */
void exchange_begin(struct exchange *exchange, int status, const char *content_type)
{
    (void)exchange, (void)status, (void)content_type;
    ck_abort();
}

bool exchange_write(struct exchange *exchange, const void *bytes, size_t length)
{
    (void)exchange, (void)bytes, (void)length;
    ck_abort();
    return false;
}

void exchange_end(struct exchange *exchange)
{
    (void)exchange;
    ck_abort();
}

void exchange_abort(struct exchange *exchange, const struct error *err)
{
    (void)exchange, (void)err;
    ck_abort();
}

int exchange_replace_body(struct exchange *exchange, struct buffer *body, struct error *err)
{
    (void)exchange;
    buffer_close(body);
    return error_set(err, ERROR_INVALID, "no body is expanded here");
}

/* Requests here have neither header nor query. */
const char *exchange_header_in(const struct exchange *exchange, const char *name)
{
    (void)exchange, (void)name;
    return NULL;
}

int exchange_query(const struct exchange *exchange, const char *name, char *text, size_t size,
                   struct error *err)
{
    (void)exchange, (void)name, (void)text, (void)size, (void)err;
    return 0;
}

int exchange_query_names(const struct exchange *exchange, const char *const *names,
                         struct error *err)
{
    (void)exchange, (void)names, (void)err;
    return 0;
}

unsigned http_connections(const struct http *http)
{
    (void)http;
    return 3;
}

unsigned grpc_connections(const struct grpc *grpc)
{
    (void)grpc;
    return 1;
}

#endif

/* An answer in parts: what the handler writes waits in a bounded buffer until the client takes it.
 *
 * libmicrohttpd asks for the next bytes when the client has taken the last (http_stream_take()). If
 * there are none, the connection is suspended: otherwise libmicrohttpd would ask again and again.
 * The next write, the end or the cut resumes it. So the phase says whose turn it is:
 * PHASE_STREAMING while the client is to take bytes, with a deadline that each progress moves;
 * PHASE_WAITING while the handler is to write, without a deadline. */
#include <assert.h>
#include <string.h>

#include "server/http/http_internal.h"
#include "server/http/http_mhd.h"

/* A handler that had to wait is told when fewer bytes than this wait for the client. */
enum { LOW_WATER_BYTES = HTTP_STREAM_MAX_BYTES / 4 };

static size_t bytes_waiting(const struct http_stream *stream)
{
    return stream->bytes.length - stream->taken;
}

/* ---- the client's side ---- */

static void tell_writable(struct http_exchange *exchange)
{
    struct http_stream *stream = &exchange->stream;
    if (!stream->full || bytes_waiting(stream) >= LOW_WATER_BYTES)
        return;
    stream->full = false;
    if (exchange->public.on_writable)
        exchange->public.on_writable(&exchange->public);
}

/* The client has everything; the memory is given back while the handler makes more. */
static void wait_for_more(struct http_exchange *exchange)
{
    buffer_close(&exchange->stream.bytes);
    exchange->stream.taken = 0;
    exchange->connection->probes = 0;
    connection_enter(exchange->connection, PHASE_WAITING, uv_now(exchange->http->loop));
}

ssize_t http_stream_take(struct http_exchange *exchange, char *bytes, size_t size)
{
    struct http_stream *stream = &exchange->stream;
    struct connection *connection = exchange->connection;
    size_t count = bytes_waiting(stream);
    if (connection->phase == PHASE_CLOSING)
        return HTTP_STREAM_CUT;
    if (count == 0 && stream->ended)
        return HTTP_STREAM_END;
    if (count == 0) {
        wait_for_more(exchange);
        return 0;
    }
    count = count < size ? count : size;
    memcpy(bytes, stream->bytes.data + stream->taken, count);
    stream->taken += count;
    if (connection->phase == PHASE_STREAMING)
        connection_enter(connection, PHASE_STREAMING, uv_now(exchange->http->loop));
    tell_writable(exchange);
    return (ssize_t)count;
}

/* ---- the handler's side ---- */

void exchange_begin(struct exchange *public, int status, const char *content_type)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    assert(exchange->handed && !exchange->stream.begun);
    http_leave_handed_over(exchange);
    exchange->stream.begun = true;
    buffer_init(&exchange->stream.bytes, 2 * HTTP_STREAM_MAX_BYTES);
    exchange_close_body(exchange);
    public->body = NULL;
    public->status = status;
    if (!exchange->connection)
        return;
    connection_enter(exchange->connection, PHASE_STREAMING, uv_now(exchange->http->loop));
    http_mhd_send_stream(exchange, content_type);
}

/* Moves the waiting bytes to the front once as many bytes as may wait have been taken. */
static void append(struct http_stream *stream, const void *bytes, size_t length)
{
    struct buffer *buffer = &stream->bytes;
    if (stream->taken >= HTTP_STREAM_MAX_BYTES) {
        buffer->length -= stream->taken;
        memmove(buffer->data, buffer->data + stream->taken, buffer->length);
        stream->taken = 0;
    }
    buffer_append(buffer, bytes, length);
}

bool exchange_write(struct exchange *public, const void *bytes, size_t length)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    struct http_stream *stream = &exchange->stream;
    struct connection *connection = exchange->connection;
    assert(exchange->handed && stream->begun && length <= HTTP_STREAM_MAX_BYTES);
    if (length == 0 || !connection || connection->phase == PHASE_CLOSING)
        return true;
    stream->full = bytes_waiting(stream) + length > HTTP_STREAM_MAX_BYTES;
    if (stream->full)
        return false;
    append(stream, bytes, length);
    public->reply_length += length;
    if (stream->bytes.failed)
        connection_shut(connection); /* no memory: the handler hears that its client is gone */
    else if (exchange->suspended) {
        connection_enter(connection, PHASE_STREAMING, uv_now(exchange->http->loop));
        http_mhd_resume(exchange);
    }
    return true;
}

/* The exchange may be gone on return. */
void exchange_end(struct exchange *public)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    struct connection *connection = exchange->connection;
    assert(exchange->handed && exchange->stream.begun && !exchange->stream.ended);
    exchange->handed = false;
    exchange->http->unanswered--;
    exchange->stream.ended = true;
    http_want_run(exchange->http);
    if (!connection) {
        exchange_free(exchange);
        return;
    }
    if (connection->phase != PHASE_CLOSING)
        http_await_reader(exchange, bytes_waiting(&exchange->stream));
    http_mhd_resume(exchange);
}

void exchange_abort(struct exchange *public, const struct error *err)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    exchange_set_error(exchange, err->text);
    if (exchange->connection && exchange->connection->phase != PHASE_CLOSING)
        connection_shut(exchange->connection);
    exchange_end(public);
}

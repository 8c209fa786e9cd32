/* What we ask of libmicrohttpd. What it asks of us is in http_callbacks.c. */
#include "server/http/http_mhd.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "server/http/http_internal.h"

/* The pieces of an answer in parts to HTTP/1.0; chunks go through the connection's pool. */
enum { STREAM_BLOCK_BYTES = 4 << 10 };

const char *http_mhd_reason(int status)
{
    return MHD_get_reason_phrase_for((unsigned)status);
}

/* ---- running ---- */

void http_mhd_run(struct http *http)
{
    http_hooks_set(http);
    (void)MHD_run(http->daemon); /* fails only when the daemon has stopped */
    http_hooks_set(NULL);
}

void http_mhd_stop(struct http *http)
{
    MHD_stop_daemon(http->daemon);
}

int http_mhd_descriptor(const struct http *http)
{
    return MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

void http_mhd_add(struct http *http, int fd, const struct sockaddr *address, socklen_t length)
{
    MHD_add_connection(http->daemon, fd, address, length); /* closes it if that fails */
}

bool http_mhd_has_work(const struct http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout;
    return MHD_get_timeout(http->daemon, &timeout) == MHD_YES && timeout == 0;
}

/* ---- connections ---- */

void http_mhd_ask_to_close(struct connection *connection)
{
    MHD_set_connection_option(connection->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
    http_want_run(connection->http);
}

void http_mhd_suspend(struct http_exchange *exchange)
{
    exchange->suspended = true;
    MHD_suspend_connection(exchange->connection->mhd);
}

void http_mhd_resume(struct http_exchange *exchange)
{
    if (exchange->suspended) {
        exchange->suspended = false;
        MHD_resume_connection(exchange->connection->mhd);
        exchange->http->run_again = true;
    }
    http_want_run(exchange->http);
}

/* ---- answers ---- */

/* Names and values are ours, so only memory can be missing. */
static void add_header(struct MHD_Response *response, const char *name, const char *value)
{
    if (MHD_add_response_header(response, name, value) != MHD_YES)
        out_of_memory();
}

static void add_headers(const struct http_exchange *exchange, struct MHD_Response *response,
                        const char *content_type)
{
    const struct exchange *public = &exchange->public;
    add_header(response, "Content-Type", content_type ? content_type : "application/json");
    for (size_t i = 0; i < public->reply_header_count; i++) {
        const struct http_header *header = &public->reply_headers[i];
        add_header(response, header->name, header->literal ? header->literal : header->value);
    }
    if (http_status_is_temporary(public->status)) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", exchange_retry_after(public));
        add_header(response, "Retry-After", seconds);
    }
    if (http_drain_closes(exchange->connection) || exchange->connection->beyond_limit)
        add_header(response, "Connection", "close");
}

bool http_mhd_queue(struct http_exchange *exchange)
{
    struct MHD_Response *response = exchange->response;
    enum MHD_Result queued =
        MHD_queue_response(exchange->connection->mhd, (unsigned)exchange->public.status, response);
    exchange->response = NULL;
    MHD_destroy_response(response);
    return queued == MHD_YES;
}

void http_mhd_drop(struct http_exchange *exchange)
{
    if (exchange->response)
        MHD_destroy_response(exchange->response);
    exchange->response = NULL;
}

static void send_response(struct http_exchange *exchange, struct MHD_Response *response,
                          const char *content_type)
{
    if (!response)
        out_of_memory();
    add_headers(exchange, response, content_type);
    exchange->response = response;
    if (exchange->suspended && !http_mhd_queue(exchange))
        connection_shut(exchange->connection); /* libmicrohttpd has given the connection up */
    http_mhd_resume(exchange);
}

void http_mhd_send(struct http_exchange *exchange, char *bytes, const char *content_type)
{
    send_response(exchange,
                  MHD_create_response_from_buffer_with_free_callback(exchange->public.reply_length,
                                                                     bytes, free),
                  content_type);
}

static ssize_t read_stream(void *context, uint64_t position, char *bytes, size_t size)
{
    struct http_exchange *exchange = context;
    ssize_t count = http_stream_take(exchange, bytes, size);
    (void)position;
    if (count == HTTP_STREAM_END)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (count == HTTP_STREAM_CUT)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (count == 0)
        http_mhd_suspend(exchange);
    return count;
}

/* Of chunks libmicrohttpd sends the last one also after HEAD, where a client takes it for the
 * beginning of the next answer: there the connection ends instead. */
void http_mhd_send_stream(struct http_exchange *exchange, const char *content_type)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, read_stream, exchange, NULL);
    if (response && exchange->public.method == HTTP_HEAD)
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    send_response(exchange, response, content_type);
}

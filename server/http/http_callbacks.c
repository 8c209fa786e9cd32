/* What libmicrohttpd asks of us: to answer a request, and to take note of its end, and of a
 * connection's beginning and end. What we ask of it is in http_mhd.c.
 *
 * libmicrohttpd asks for answers and sends them. It does not read requests: http_hooks.c takes its
 * place there, http_receive.c reads, and http_framing.c and http_head.c say what the bytes mean.
 * http_turn.c says when it runs.
 *
 * How an answer waits: suspending a connection costs three system calls, more than computing a
 * small model's answer. So an exchange that was handed over is first left alone, and libmicrohttpd
 * asks for its answer again in its next run, a whole loop turn later. Only an exchange that is
 * still unanswered then is suspended. */
#include <limits.h>
#include <microhttpd.h>
#include <stdlib.h>

#include "core/memory.h"
#include "server/http/http_internal.h"
#include "server/http/http_mhd.h"

/* Per connection: the request that libmicrohttpd is shown, for which it takes half of this, and the
 * header of the answer. Both are ours and small. */
enum { CONNECTION_POOL_BYTES = 8 << 10 };

/* ---- requests ---- */

static struct connection *connection_of(struct MHD_Connection *mhd)
{
    return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* The handler's turn. A handler that answers at once is done here. */
static void serve(struct http_exchange *exchange)
{
    struct http *http = exchange->http;
    connection_enter(exchange->connection, PHASE_WAITING, uv_now(http->loop));
    if (exchange->refusal)
        exchange_reply_error(&exchange->public, exchange->refusal);
    else
        http->callbacks.on_request(&exchange->public, http->callbacks.context);
}

static bool may_be_served(const struct http_exchange *exchange)
{
    const struct http_callbacks *callbacks = &exchange->http->callbacks;
    return !exchange->connection->reserved ||
           callbacks->is_vital(&exchange->public, callbacks->context) ||
           connection_promote(exchange->connection);
}

/* The request is whole. */
static enum MHD_Result hand_over(struct http_exchange *exchange)
{
    struct http *http = exchange->http;
    exchange->public.body_length = exchange->body.length;
    exchange->public.body = exchange->body.length ? exchange->body.data : NULL;
    exchange->handed = true;
    exchange->handed_turn = http->turn;
    http->unanswered++;
    http->handed_over++;
    if (may_be_served(exchange))
        serve(exchange);
    else
        connection_enter(exchange->connection, PHASE_QUEUED, uv_now(http->loop));
    return !exchange->response || http_mhd_queue(exchange) ? MHD_YES : MHD_NO;
}

void http_serve_queued(struct http_exchange *exchange)
{
    serve(exchange);
}

void http_refuse_queued(struct http_exchange *exchange)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_UNAVAILABLE, HTTP_ALL_TAKEN);
    connection_leave_reserve(exchange->connection);
    exchange_reply_error(&exchange->public, &err);
}

/* libmicrohttpd asks again for an answer that is not there. */
static enum MHD_Result wait_longer(struct http_exchange *exchange)
{
    if (exchange->handed_turn == exchange->http->turn)
        return MHD_YES;
    exchange->http->handed_over--;
    http_mhd_suspend(exchange);
    return MHD_YES;
}

/* libmicrohttpd calls this for a request's header, then for the whole request, and then again and
 * again until there is an answer. A connection on which it has read what we did not show is closed.
 */
static enum MHD_Result on_access(void *context, struct MHD_Connection *mhd, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **state)
{
    (void)context, (void)url, (void)method, (void)version, (void)data, (void)size;
    struct connection *connection = connection_of(mhd);
    struct http_exchange *exchange = connection->exchange;
    if (!exchange || !connection->whole)
        return MHD_NO;
    if (!*state) {
        *state = exchange;
        return MHD_YES;
    }
    switch (connection->phase) {
    case PHASE_RECEIVING:
        return hand_over(exchange);
    case PHASE_QUEUED:
    case PHASE_WAITING:
        return wait_longer(exchange);
    case PHASE_STREAMING:
    case PHASE_SENDING:
        return !exchange->response || http_mhd_queue(exchange) ? MHD_YES : MHD_NO;
    default:
        return MHD_NO;
    }
}

/* The client has gone before the end of the answer: cuts the exchange loose. The handler may answer
 * at once, which frees it. */
static void abandon(struct http_exchange *exchange)
{
    bool handler_has_it = exchange->connection->phase != PHASE_QUEUED;
    struct error err = ERROR_INIT;
    if (!exchange->stream.begun)
        http_leave_handed_over(exchange);
    else if (exchange->public.method != HTTP_HEAD && !exchange->public.endless)
        exchange_set_error(exchange, "the client was gone before the answer ended");
    exchange->connection = NULL;
    if (handler_has_it) {
        exchange_tell_gone(exchange);
        return;
    }
    error_set(&err, ERROR_DISCONNECTED, "the client went away");
    exchange_reply_error(&exchange->public, &err);
}

/* The exchange was answered, or its client has gone. */
static void end_exchange(struct connection *connection)
{
    struct http_exchange *exchange = connection->exchange;
    connection->exchange = NULL;
    if (!exchange)
        return;
    if (exchange->handed) {
        abandon(exchange);
        return;
    }
    http_mhd_drop(exchange);
    if (exchange->public.status == 0) {
        exchange->public.status = error_http_status(ERROR_DISCONNECTED);
        exchange_set_error(exchange,
                           "the client closed the connection before its request was whole");
    }
    exchange_free(exchange);
}

/* For the log and the metrics, an answer that did not go out whole is none. */
static void note_cut(struct http_exchange *exchange)
{
    if (exchange->public.status == 0 || exchange->public.error_text || exchange->public.endless)
        return;
    exchange->public.status = error_http_status(ERROR_DISCONNECTED);
    exchange_set_error(exchange, "the client did not take the whole answer");
}

static void on_completed(void *context, struct MHD_Connection *mhd, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)context;
    struct connection *connection = connection_of(mhd);
    *state = NULL;
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK && connection->exchange)
        note_cut(connection->exchange);
    end_exchange(connection);
    http_receive_next(connection);
    if (connection->phase != PHASE_CLOSING)
        connection_enter(connection, PHASE_IDLE, uv_now(connection->http->loop));
}

static void on_connection(void *context, struct MHD_Connection *mhd, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct connection *connection = xcalloc(1, sizeof *connection);
        connection->mhd = mhd;
        connection->fd =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        connection->client =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
        connection_open(http, connection);
        http_receive_open(connection);
        if (http->connections == 1)
            http_start_ticking(http);
        *state = connection;
    } else {
        http_linger(*state);
        http_receive_close(*state);
        end_exchange(*state); /* also one that libmicrohttpd does not know */
        connection_close(*state);
        http->run_again |= http->backlog_waits; /* for its slot */
        if (http->connections == 0 && !http->draining)
            uv_timer_stop(&http->tick);
    }
}

/* ---- the daemon ---- */

bool http_start_daemon(struct http *http)
{
    unsigned flags =
        MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
    http->daemon =
        MHD_start_daemon(flags, 0, NULL, NULL, on_access, http, MHD_OPTION_CONNECTION_LIMIT,
                         UINT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_POOL_BYTES, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
                         http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
    return http->daemon != NULL;
}

/* HTTP's life, and what libmicrohttpd asks of it: a request's turn, its end, a connection's
 * beginning and end.
 *
 * libmicrohttpd asks for answers and sends them. It does not read requests: http_hooks.c takes its
 * place there, http_receive.c reads, and http_framing.c and http_head.c say what the bytes mean.
 * When it runs is in http_turn.c, what we ask of it in http_mhd.c.
 *
 * How an answer waits. Suspending a connection costs three system calls, more than computing a
 * small model's answer. So an exchange handed over is first just left alone: libmicrohttpd asks for
 * its answer again in its next run, which is a whole loop turn later. Only an exchange that is
 * still unanswered then is suspended. */
#include "server/http.h"

#include <assert.h>
#include <limits.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/http_internal.h"
#include "server/http_listen.h"
#include "server/http_mhd.h"

enum {
    /* Per connection: libmicrohttpd's view of a request, of which half is room to read, and the
     * header of the answer. Both are ours and small. */
    CONNECTION_POOL_BYTES = 8 << 10,

    /* A refused client may go on sending for so long, unread by anyone but us. Closing at once
     * would make its kernel discard our answer (connection reset) before it is read. */
    LINGER_MS = 2000,

    /* Beyond the connection limit a request may wait for so long until one closes. */
    QUEUED_MS = 1000,
};

/* ---- requests: libmicrohttpd's callbacks ---- */

static struct connection *connection_of(struct MHD_Connection *mhd)
{
    return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* The handler's turn. A handler that answers at once is done here. */
static void serve(struct http_exchange *exchange)
{
    struct http *http = exchange->http;
    connection_enter(exchange->connection, PHASE_WAITING, uv_now(http->loop));
    http->callbacks.on_request(&exchange->public, http->callbacks.context);
}

static bool may_be_served(const struct http_exchange *exchange)
{
    const struct http_callbacks *callbacks = &exchange->http->callbacks;
    return !exchange->connection->reserved ||
           callbacks->is_vital(&exchange->public, callbacks->context) ||
           connection_promote(exchange->connection);
}

/* The request is complete. */
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

/* Asked again for an answer that is not there. */
static enum MHD_Result wait_longer(struct http_exchange *exchange)
{
    if (exchange->handed_turn == exchange->http->turn)
        return MHD_YES;
    exchange->http->handed_over--;
    http_mhd_suspend(exchange);
    return MHD_YES;
}

/* libmicrohttpd calls this for a request's header, then for the whole request, and then again and
 * again until there is an answer. Closes a connection on which it read what we did not show it. */
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

/* The client is gone while an answer, or the rest of one, is awaited: cut the exchange loose. The
 * handler may answer at once, which frees it. */
static void abandon(struct http_exchange *exchange)
{
    bool handler_has_it = exchange->connection->phase != PHASE_QUEUED;
    struct error err = ERROR_INIT;
    if (!exchange->stream.begun)
        http_leave_handed_over(exchange);
    else if (exchange->public.method != HTTP_HEAD)
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

/* An answer that did not go out whole is none, for the log and the metrics. */
static void note_cut(struct http_exchange *exchange)
{
    if (exchange->public.status == 0 || exchange->public.error_text)
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
        http_receive_close(*state);
        end_exchange(*state); /* also one of which libmicrohttpd has not heard */
        connection_close(*state);
        http->run_again = true;
        if (http->connections == 0 && !http->draining)
            uv_timer_stop(&http->tick);
    }
}

/* ---- life ---- */

static struct MHD_Daemon *start_daemon(struct http *http)
{
    unsigned flags =
        MHD_USE_EPOLL | MHD_USE_TURBO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET;
    return MHD_start_daemon(flags, 0, NULL, NULL, on_access, http, MHD_OPTION_CONNECTION_LIMIT,
                            UINT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)CONNECTION_POOL_BYTES, MHD_OPTION_NOTIFY_COMPLETED,
                            on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
                            MHD_OPTION_END);
}

static struct http *http_allocate(uv_loop_t *loop, const struct http_options *options,
                                  const struct http_callbacks *callbacks)
{
    struct http *http = xcalloc(1, sizeof *http);
    http->options = *options;
    http->options.host = NULL;
    http->callbacks = *callbacks;
    http->loop = loop;
    http->scratch = xmalloc(HTTP_SCRATCH_BYTES);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        TAILQ_INIT(&http->lists[phase]);
    TAILQ_INIT(&http->hung_up);
    TAILQ_INIT(&http->reserve);
    http->timeouts_ms[PHASE_IDLE] = options->idle_timeout_ms;
    http->timeouts_ms[PHASE_RECEIVING] = options->request_timeout_ms;
    http->timeouts_ms[PHASE_QUEUED] = QUEUED_MS;
    http->timeouts_ms[PHASE_STREAMING] = options->idle_timeout_ms;
    http->timeouts_ms[PHASE_SENDING] = options->idle_timeout_ms;
    http->timeouts_ms[PHASE_LINGERING] = LINGER_MS;
    return http;
}

static void http_free(struct http *http)
{
    uv_mutex_destroy(&http->idle_mutex);
    free(http->scratch);
    free(http->by_fd);
    free(http);
}

struct http *http_new(uv_loop_t *loop, const struct http_options *options,
                      const struct http_callbacks *callbacks, struct error *err)
{
    uint16_t port = 0;
    if (http_hooks_check(err) != 0)
        return NULL;
    int fd = http_listen(loop, options->host, options->port, options->listening, &port, err);
    if (fd < 0)
        return NULL;
    struct http *http = http_allocate(loop, options, callbacks);
    http->listen_fd = fd;
    http->port = port;
    if (uv_mutex_init(&http->idle_mutex) != 0)
        abort(); /* a small allocation, see core/error.h */
    http->hangup_fd = epoll_create1(EPOLL_CLOEXEC);
    http->daemon = http->hangup_fd >= 0 ? start_daemon(http) : NULL;
    if (http->daemon) {
        http_start_turning(http);
        http_start_listening(http);
        http_limits_join(http->options.limits, http);
        http_want_run(http);
        return http;
    }
    error_set(err, ERROR_INTERNAL, "cannot start libmicrohttpd");
    close(http->hangup_fd);
    close(fd);
    http_free(http);
    return NULL;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http *http = handle->data;
    if (--http->open_handles == 0)
        http_free(http);
}

void http_close(struct http *http)
{
    assert(http->unanswered == 0);
    uv_handle_t *handles[] = {(uv_handle_t *)&http->readable,    (uv_handle_t *)&http->hangups,
                              (uv_handle_t *)&http->after_poll,  (uv_handle_t *)&http->again,
                              (uv_handle_t *)&http->tick,        (uv_handle_t *)&http->listening,
                              (uv_handle_t *)&http->listen_pause};
    if (http->listen_fd >= 0)
        http_stop_listening(http);
    http_limits_leave(http->options.limits, http);
    http->open_handles = sizeof handles / sizeof *handles;
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        uv_close(handles[i], on_handle_closed);
    MHD_stop_daemon(http->daemon); /* after libuv has let go of its epoll descriptor */
    close(http->hangup_fd);
}

uint16_t http_port(const struct http *http)
{
    return http->port;
}

unsigned http_connections(const struct http *http)
{
    return http->connections;
}

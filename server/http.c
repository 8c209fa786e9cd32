/* The edge to libmicrohttpd: when it runs, its callbacks, and the answers it sends. The only file
 * that includes <microhttpd.h>.
 *
 * libmicrohttpd accepts connections, asks for answers and sends them. It does not read requests:
 * http_hooks.c takes its place there, http_receive.c reads, and http_framing.c and http_head.c say
 * what the bytes mean. Exchanges and refusals are in http_exchange.c, connections over time in
 * http_connection.c, the listening socket in http_listen.c.
 *
 * How the two loops meet. libmicrohttpd keeps its sockets in an epoll set of its own; libuv polls
 * that set's descriptor. Readiness only sets a flag; libmicrohttpd runs once per loop turn, after
 * polling (uv_check), so that a hundred answers given in one turn cost one run. As long as it has
 * work left that no descriptor announces (its epoll set is edge-triggered), an idle handle keeps
 * the loop from sleeping.
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
#include "proto/json.h"
#include "server/http_internal.h"
#include "server/http_listen.h"

enum {
    /* Per connection: libmicrohttpd's view of a request, of which half is room to read, and the
     * header of the answer. Both are ours and small. */
    CONNECTION_POOL_BYTES = 8 << 10,

    /* A refused client may go on sending for so long, unread by anyone but us. Closing at once
     * would make its kernel discard our answer (connection reset) before it is read. */
    LINGER_MS = 2000,

    /* Beyond the connection limit a request may wait for so long until one closes. */
    QUEUED_MS = 1000,

    /* A client that takes its answer more slowly than this holds the answer's memory to exhaust it.
     */
    SLOWEST_READER_BYTES_PER_MS = 16,

    /* Of an answer in parts to HTTP/1.0; what is in chunks goes through the pool. */
    STREAM_BLOCK_BYTES = 4 << 10,

    /* libmicrohttpd runs per loop turn, lest one busy socket starves the rest of the loop. */
    MAX_RUNS_PER_TURN = 4,
};

const char *http_reason(int status)
{
    return MHD_get_reason_phrase_for((unsigned)status);
}

/* ---- running libmicrohttpd ---- */

static void on_again(uv_idle_t *again)
{
    (void)again; /* its being active keeps the loop from sleeping */
}

void http_want_run(struct http *http)
{
    http->run_wanted = true;
    uv_idle_start(&http->again, on_again);
}

void http_add(struct http *http, int fd, const struct sockaddr *address, socklen_t length)
{
    MHD_add_connection(http->daemon, fd, address, length); /* closes it if that fails */
}

/* Whether libmicrohttpd has work that no descriptor will announce. What it does at a time of its
 * own (http_ask_to_close()) comes with a tick. */
static bool has_work(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout;
    return MHD_get_timeout(http->daemon, &timeout) == MHD_YES && timeout == 0;
}

/* Whatever state libmicrohttpd has the connection in, and whether or not it looks at its socket
 * again, it gives it up after a second without progress. */
void http_ask_to_close(struct connection *connection)
{
    MHD_set_connection_option(connection->mhd, MHD_CONNECTION_OPTION_TIMEOUT, 1u);
    http_want_run(connection->http);
}

/* Runs once more when a connection was closed (somebody may wait for its slot) or resumed
 * (libmicrohttpd looks for those only when it begins to run). Connections that are handed over
 * count as work to libmicrohttpd, though only another loop turn can help them. */
static void run(struct http *http)
{
    bool more = true;
    http->turn++;
    for (int runs = 0; runs < MAX_RUNS_PER_TURN && more; runs++) {
        http->run_again = false;
        http_accept(http);
        http_hooks_set(http);
        MHD_run(http->daemon);
        http_hooks_set(NULL);
        http_accepted(http);
        more = http->run_again || (has_work(http) && http->handed_over == 0);
    }
    http->run_wanted = more || has_work(http);
    if (http->run_wanted)
        uv_idle_start(&http->again, on_again);
    else
        uv_idle_stop(&http->again);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct http *http = poll->data;
    http->run_wanted = true;
}

/* Runs before looking at deadlines: what has arrived counts, even if the loop was too busy to look.
 */
static void on_after_poll(uv_check_t *check)
{
    struct http *http = check->data;
    if (!http->run_wanted)
        return;
    run(http);
    if (http->tick_passed) {
        http->tick_passed = false;
        connections_expire(http);
    }
    http_promote(http);
    http_drain_step(http);
}

static void on_hangups(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    connections_note_hangups(poll->data);
}

static void on_tick(uv_timer_t *tick)
{
    struct http *http = tick->data;
    http->tick_passed = true;
    http_want_run(http);
}

void http_start_ticking(struct http *http)
{
    uv_timer_start(&http->tick, on_tick, HTTP_TICK_MS, HTTP_TICK_MS);
}

/* ---- answers ---- */

/* They cannot be refused: their names are literals and their values are ours. */
static void add_headers(const struct http_exchange *exchange, struct MHD_Response *response,
                        const char *content_type)
{
    const struct exchange *public = &exchange->public;
    MHD_add_response_header(response, "Content-Type",
                            content_type ? content_type : "application/json");
    for (size_t i = 0; i < public->reply_header_count; i++)
        MHD_add_response_header(response, public->reply_headers[i].name,
                                public->reply_headers[i].value);
    if (http_status_is_temporary(public->status))
        MHD_add_response_header(response, "Retry-After", "1");
    if (exchange->http->draining || exchange->connection->beyond_limit)
        MHD_add_response_header(response, "Connection", "close");
}

/* Takes `bytes`. */
static struct MHD_Response *make_response(const struct http_exchange *exchange, char *bytes,
                                          const char *content_type)
{
    struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback(
        exchange->public.reply_length, bytes, free);
    if (!response)
        out_of_memory();
    add_headers(exchange, response, content_type);
    return response;
}

/* libmicrohttpd takes the answer: when it asks, or at any time while the connection is suspended.
 */
static enum MHD_Result queue_answer(struct http_exchange *exchange)
{
    struct MHD_Response *response = exchange->response;
    enum MHD_Result queued =
        MHD_queue_response(exchange->connection->mhd, (unsigned)exchange->public.status, response);
    exchange->response = NULL;
    MHD_destroy_response(response);
    return queued;
}

void http_await_reader(struct http_exchange *exchange, size_t bytes)
{
    uint64_t allowance = bytes / SLOWEST_READER_BYTES_PER_MS;
    connection_enter(exchange->connection, PHASE_SENDING, uv_now(exchange->http->loop) + allowance);
}

static void resume(struct http_exchange *exchange)
{
    exchange->suspended = false;
    MHD_resume_connection(exchange->connection->mhd);
    exchange->http->run_again = true;
}

/* To a client that is still there. */
static void deliver(struct http_exchange *exchange)
{
    if (exchange->suspended) {
        queue_answer(exchange);
        resume(exchange);
    }
    http_want_run(exchange->http);
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

void exchange_reply(struct exchange *public, int status, const char *content_type,
                    struct buffer *body)
{
    struct http_exchange *exchange = (struct http_exchange *)public;
    end_hand_over(exchange);
    if (body->failed) {
        buffer_close(body);
        buffer_init(body, HTTP_ERROR_MAX_BYTES);
        status = 500;
        content_type = NULL;
        exchange_set_error(exchange, "the answer is larger than the server's limit or its memory");
        json_append_error(body, public->error_text);
    }
    public->status = status;
    char *bytes = buffer_steal(body, &public->reply_length);
    if (!exchange->connection) {
        http_want_run(exchange->http); /* draining may have waited for this one */
        free(bytes);
        exchange_free(exchange);
        return;
    }
    exchange->response = make_response(exchange, bytes, content_type);
    http_await_reader(exchange, public->reply_length);
    deliver(exchange);
}

/* ---- answers in parts ---- */

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
        MHD_suspend_connection(exchange->connection->mhd);
    return count;
}

void http_send_stream(struct http_exchange *exchange, const char *content_type)
{
    exchange->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES,
                                                           read_stream, exchange, NULL);
    if (!exchange->response)
        out_of_memory();
    add_headers(exchange, exchange->response, content_type);
    connection_enter(exchange->connection, PHASE_STREAMING, uv_now(exchange->http->loop));
    deliver(exchange);
}

void http_stream_resume(struct http_exchange *exchange)
{
    if (exchange->suspended)
        resume(exchange);
    http_want_run(exchange->http);
}

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
    return exchange->response ? queue_answer(exchange) : MHD_YES;
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
    exchange->suspended = true;
    exchange->http->handed_over--;
    MHD_suspend_connection(exchange->connection->mhd);
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
        return exchange->response ? queue_answer(exchange) : MHD_YES;
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
    if (exchange->response)
        MHD_destroy_response(exchange->response);
    if (exchange->public.status == 0) {
        exchange->public.status = error_http_status(ERROR_DISCONNECTED);
        exchange_set_error(exchange,
                           "the client closed the connection before its request was whole");
    }
    exchange_free(exchange);
}

static void on_completed(void *context, struct MHD_Connection *mhd, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)context, (void)code;
    struct connection *connection = connection_of(mhd);
    *state = NULL;
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

static void poll_start(struct http *http, uv_poll_t *poll, int epoll_fd, uv_poll_cb on_event)
{
    if (uv_poll_init(http->loop, poll, epoll_fd) != 0)
        out_of_memory();
    poll->data = http;
    uv_poll_start(poll, UV_READABLE, on_event);
}

static void attach(struct http *http)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    poll_start(http, &http->readable, info->epoll_fd, on_readable);
    poll_start(http, &http->hangups, http->hangup_fd, on_hangups);
    uv_check_init(http->loop, &http->after_poll);
    uv_idle_init(http->loop, &http->again);
    uv_timer_init(http->loop, &http->tick);
    http->after_poll.data = http->again.data = http->tick.data = http;
    uv_check_start(&http->after_poll, on_after_poll);
    http_start_listening(http);
    http_limits_join(http->options.limits, http);
    http_want_run(http);
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
        attach(http);
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

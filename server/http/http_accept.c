/* Accepting: who gets a slot, and what happens when all are taken.
 *
 * We accept connections ourselves and add them to libmicrohttpd, which has only a limit per loop
 * and knows nothing of idle connections. When every slot is taken, a new connection gets the slot
 * of the one that has been idle the longest. If none is idle, it enters a small reserve. There a
 * request for health or metrics is served at once; any other waits for a slot to become free, and
 * is refused with 503 if that takes too long. When the reserve is full too, its oldest connections
 * make room, so that a new one always gets in within milliseconds. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http/http_internal.h"
#include "server/http/http_mhd.h"

enum {
    /* New connections per run, so that they do not starve the existing ones. */
    ACCEPT_AT_MOST = 16,

    /* How long a connection may stay in a full reserve: a request that was sent at once has arrived
     * by then. */
    RESERVE_MS = 10,

    /* When descriptors or memory have run out: how soon to try again. */
    EXHAUSTED_MS = 100,
};

/* ---- the reserve ---- */

void connection_leave_reserve(struct connection *connection)
{
    if (!connection->reserved)
        return;
    TAILQ_REMOVE(&connection->http->reserve, connection, reserve_link);
    connection->http->reserve_count--;
    connection->reserved = false;
}

/* Makes a connection leave the reserve, unless it is being served, or has sent what is read only in
 * the run to come. While draining, one whose request is whole stays too: it is owed its answer, and
 * slots become free as others close. */
static bool make_leave(struct connection *connection)
{
    struct error all_taken = ERROR_INIT;
    error_set(&all_taken, ERROR_UNAVAILABLE, HTTP_ALL_TAKEN);
    switch (connection->phase) {
    case PHASE_IDLE:
        if (connection_has_unread_bytes(connection))
            return false;
        connection_shut(connection);
        return true;
    case PHASE_SENDING:
        connection_shut(connection);
        return true;
    case PHASE_RECEIVING:
        http_refuse(connection, &all_taken);
        return true;
    case PHASE_QUEUED:
        if (connection->http->draining)
            return false;
        http_refuse_queued(connection->exchange);
        return true;
    default:
        return false;
    }
}

/* Shuts the oldest of those that were refused and linger. */
static bool shut_lingering(struct http *http)
{
    struct connection *connection;
    TAILQ_FOREACH(connection, &http->lists[PHASE_LINGERING], link)
    {
        if (connection->beyond_limit) {
            connection_shut(connection);
            return true;
        }
    }
    return false;
}

static bool reserve_has_room(struct http *http)
{
    struct connection *connection = TAILQ_FIRST(&http->reserve), *next;
    bool has_room = http->reserve_count < HTTP_RESERVE;
    for (; connection && !has_room; connection = next) {
        next = TAILQ_NEXT(connection, reserve_link);
        if (uv_now(http->loop) < connection->opened_ms + RESERVE_MS)
            return false;
        has_room = make_leave(connection);
    }
    return has_room && (http->beyond_limit < HTTP_MAX_BEYOND_LIMIT || shut_lingering(http));
}

bool connection_promote(struct connection *connection)
{
    struct http *http = connection->http;
    if (!http_limits_take_or_free_slot(http->options.limits))
        return false;
    connection_leave_reserve(connection);
    connection->has_slot = true;
    connection->beyond_limit = false;
    http->beyond_limit--;
    return true;
}

void http_promote(struct http *http)
{
    struct connection *connection;
    while ((connection = TAILQ_FIRST(&http->reserve)) && connection_promote(connection))
        if (connection->phase == PHASE_QUEUED)
            http_serve_queued(connection->exchange);
}

/* ---- accepting ---- */

static void on_listening(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct http *http = poll->data;
    http->backlog_waits = true;
    http->run_wanted = true;
}

static void listen_again(uv_timer_t *pause)
{
    struct http *http = pause->data;
    if (http->listen_fd >= 0 && uv_poll_start(&http->listening, UV_READABLE, on_listening) != 0)
        uv_timer_start(pause, listen_again, EXHAUSTED_MS, 0);
}

/* Leaves new connections in the backlog for a while. */
static void pause_listening(struct http *http, unsigned ms)
{
    http->backlog_waits = false;
    uv_poll_stop(&http->listening);
    uv_timer_start(&http->listen_pause, listen_again, ms, 0);
}

/* Returns whether to go on accepting. Other errors concern this one connection only (accept(2)). */
static bool accept_failed(struct http *http, int reason)
{
    if (reason == EMFILE || reason == ENFILE || reason == ENOBUFS || reason == ENOMEM) {
        http_limits_close_idle(http->options.limits);
        pause_listening(http, EXHAUSTED_MS);
        return false;
    }
    http->backlog_waits = reason != EAGAIN && reason != EWOULDBLOCK;
    return http->backlog_waits;
}

static bool accept_one(struct http *http)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    bool has_slot = http_limits_take_slot(http->options.limits);
    if (!has_slot) {
        http->backlog_waits = http_listen_waits(http->listen_fd);
        if (!http->backlog_waits)
            return false;
        has_slot = http_limits_take_or_free_slot(http->options.limits);
    }
    if (!has_slot && !reserve_has_room(http)) {
        pause_listening(http, RESERVE_MS);
        return false;
    }
    int fd = accept4(http->listen_fd, (struct sockaddr *)&address, &length,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    int reason = errno;
    http->slots_ahead += has_slot;
    if (fd < 0)
        return accept_failed(http, reason);
    if (http_limits_admit(http->options.limits, (struct sockaddr *)&address))
        http_mhd_add(http, fd, (struct sockaddr *)&address, length);
    else
        close(fd);
    return true;
}

/* The turn may have begun long ago, but no new connection is idle yet. */
void http_accept(struct http *http)
{
    if (http->backlog_waits)
        uv_update_time(http->loop);
    for (int i = 0; i < ACCEPT_AT_MOST && http->backlog_waits; i++)
        if (!accept_one(http))
            break;
}

/* Gives back the slots of new connections that libmicrohttpd did not take, for want of memory, or
 * that were closed because their address has too many. */
void http_accepted(struct http *http)
{
    for (; http->slots_ahead > 0; http->slots_ahead--)
        http_limits_return_slot(http->options.limits);
}

/* Slots are alike, so it does not matter which of those taken for new connections this one gets. */
void connection_take_place(struct connection *connection)
{
    struct http *http = connection->http;
    connection->client_counted = http_limits_take_address(http->options.limits, connection->client);
    connection->opened_ms = uv_now(http->loop);
    connection->has_slot = http->slots_ahead > 0;
    if (connection->has_slot) {
        http->slots_ahead--;
        return;
    }
    connection->reserved = connection->beyond_limit = true;
    TAILQ_INSERT_TAIL(&http->reserve, connection, reserve_link);
    http->reserve_count++;
    http->beyond_limit++;
}

void connection_give_up_place(struct connection *connection)
{
    connection_leave_reserve(connection);
    connection->http->beyond_limit -= connection->beyond_limit;
    connection->beyond_limit = false;
    if (atomic_exchange(&connection->has_slot, false))
        http_limits_return_slot(connection->http->options.limits);
}

int http_start_listening(struct http *http)
{
    uv_timer_init(http->loop, &http->listen_pause);
    http->listen_pause.data = http;
    int status = uv_poll_init(http->loop, &http->listening, http->listen_fd);
    http->listening.data = http;
    return status == 0 ? uv_poll_start(&http->listening, UV_READABLE, on_listening) : status;
}

void http_stop_listening(struct http *http)
{
    uv_timer_stop(&http->listen_pause);
    /* Before the descriptor, whose number the next open() of any thread gets. */
    http_close_handle(http, (uv_handle_t *)&http->listening);
    close(http->listen_fd);
    if (http->options.path)
        unlink(http->options.path);
    http->listen_fd = -1;
    http->backlog_waits = false;
}

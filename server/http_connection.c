/* Connections over time: which phase each is in, what happens when a phase lasts too long, and
 * whether the client of a long-awaited answer is still there.
 *
 * libmicrohttpd's own timeout is of no use here: it measures inactivity, so a byte a second keeps a
 * connection for ever (slowloris), and it stops altogether while a connection is suspended. We shut
 * a socket down and leave it to libmicrohttpd to notice and close. */
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "http_internal.h"

/* --- clients that hang up -------------------------------------------------- */

/* While a connection is suspended libmicrohttpd does not look at its socket, so libuv may. Only
 * connections that wait longer than a tick are watched: most answers come in well under a
 * millisecond, and a watch costs four system calls. Separate from the connection because a libuv
 * handle outlives its uv_close() by a loop turn. */
struct hangup_watch {
    uv_poll_t poll;
    struct connection *connection;
};

static void free_watch(uv_handle_t *handle)
{
    free(handle->data);
}

static void unwatch(struct connection *connection)
{
    struct hangup_watch *watch = connection->watch;
    if (!watch)
        return;
    connection->watch = NULL;
    uv_close((uv_handle_t *)&watch->poll, free_watch); /* the descriptor is free from here on */
}

/* Whatever woke us, a hang-up or an error: there is nobody left to answer. */
static void on_hangup(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct hangup_watch *watch = poll->data;
    struct exchange *exchange = &watch->connection->exchange->public;
    unwatch(watch->connection);
    if (exchange->on_disconnect)
        exchange->on_disconnect(exchange);
}

/* --- phases ---------------------------------------------------------------- */

void connection_open(struct http *http, struct connection *connection)
{
    connection->http = http;
    connection->phase = PHASE_IDLE;
    connection->since_ms = uv_now(http->loop);
    TAILQ_INSERT_TAIL(&http->lists[PHASE_IDLE], connection, link);
    http->connections++;
}

void connection_close(struct connection *connection)
{
    struct http *http = connection->http;
    unwatch(connection);
    TAILQ_REMOVE(&http->lists[connection->phase], connection, link);
    http->connections--;
    free(connection);
}

/* Sorted by `since_ms`: nearly always at the end at once. */
void connection_enter(struct connection *connection, enum phase phase, uint64_t since_ms)
{
    struct connection_list *lists = connection->http->lists;
    unwatch(connection);
    TAILQ_REMOVE(&lists[connection->phase], connection, link);
    connection->phase = phase;
    connection->since_ms = since_ms;
    struct connection *before = TAILQ_LAST(&lists[phase], connection_list);
    while (before && before->since_ms > since_ms)
        before = TAILQ_PREV(before, connection_list, link);
    if (before)
        TAILQ_INSERT_AFTER(&lists[phase], before, connection, link);
    else
        TAILQ_INSERT_HEAD(&lists[phase], connection, link);
}

/* --- what has lasted too long ---------------------------------------------- */

/* Wakes libmicrohttpd up to close it. */
static void shut(struct connection *connection)
{
    shutdown(connection->fd, SHUT_RDWR);
    connection_enter(connection, PHASE_CLOSING, uv_now(connection->http->loop));
}

/* Where libuv cannot watch, the answer will find out. */
static void watch(struct connection *connection)
{
    connection_enter(connection, PHASE_WATCHED, connection->since_ms);
    struct hangup_watch *new_watch = xmalloc(sizeof *new_watch);
    if (uv_poll_init(connection->http->loop, &new_watch->poll, connection->fd) != 0) {
        free(new_watch);
        return;
    }
    new_watch->poll.data = new_watch;
    new_watch->connection = connection;
    connection->watch = new_watch;
    uv_poll_start(&new_watch->poll, UV_DISCONNECT, on_hangup);
}

/* Takes the connection out of its phase in every case. */
static void expire(struct connection *connection)
{
    bool awaits_request = connection->phase == PHASE_IDLE || connection->phase == PHASE_RECEIVING;
    if (connection->phase == PHASE_WAITING)
        watch(connection);
    else if (awaits_request && connection->exchange)
        http_refuse(connection, error_http_status(ERROR_TIMEOUT),
                    "the request did not arrive whole in time");
    else
        shut(connection);
}

static bool has_unread_bytes(int fd)
{
    int bytes = 0;
    return ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

/* While draining, connections without a request are closed after a grace, in which a client learns
 * from its next answer that it must reconnect elsewhere. One whose next request is just arriving is
 * left to be served. */
static void close_idle(struct http *http)
{
    uint64_t now = uv_now(http->loop);
    struct connection *connection = TAILQ_FIRST(&http->lists[PHASE_IDLE]), *next;
    for (; connection; connection = next) {
        next = TAILQ_NEXT(connection, link);
        uint64_t since = connection->since_ms > http->drain_since_ms ? connection->since_ms
                                                                     : http->drain_since_ms;
        if (now < since + http->drain_grace_ms)
            break;
        if (!connection->exchange && !has_unread_bytes(connection->fd))
            shut(connection);
    }
}

/* --- clients that leave a request half-sent -------------------------------- */

/* A connection without a request is looked at for so long after its last answer; one with part of a
 * request, for as long as it has one. */
enum { YOUNG_MS = 300 };

static bool has_hung_up(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* When the end of a connection arrives together with the first bytes of a request, libmicrohttpd
 * 0.9.75 reads the bytes and forgets the rest of that (edge-triggered) readiness: it would never
 * look again, and keep the connection until its deadline. */
static void close_abandoned(struct connection_list *list, uint64_t now)
{
    struct connection *connection = TAILQ_FIRST(list), *next;
    for (; connection; connection = next) {
        next = TAILQ_NEXT(connection, link);
        bool suspect = connection->exchange || now < connection->since_ms + YOUNG_MS;
        if (suspect && has_hung_up(connection->fd))
            shut(connection);
    }
}

void connections_expire(struct http *http)
{
    uint64_t now = uv_now(http->loop);
    // close_abandoned(&http->lists[PHASE_IDLE], now);
    // close_abandoned(&http->lists[PHASE_RECEIVING], now);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        uint64_t timeout = http->timeouts_ms[phase];
        struct connection *first;
        while (timeout && (first = TAILQ_FIRST(&http->lists[phase])) &&
               now >= first->since_ms + timeout)
            expire(first);
    }
    if (http->draining)
        close_idle(http);
}

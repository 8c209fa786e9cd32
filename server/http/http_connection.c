/* Connections over time: which phase each is in, what happens when a phase lasts too long, and what
 * happens when clients hang up.
 *
 * libmicrohttpd's own timeout does not help: it measures inactivity, so one byte a second keeps a
 * connection for ever (slowloris), and it stops while a connection is suspended. We shut the socket
 * down and let libmicrohttpd notice and close it. For that it does get a timeout, because it may
 * never look at the socket again. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "server/http/http_internal.h"
#include "server/http/http_io.h"
#include "server/http/http_mhd.h"

/* ---- phases ---- */

/* Writes the client's address as text, once for all requests of the connection. */
static void note_client(struct connection *connection)
{
    const struct sockaddr *address = connection->client;
    bool ipv6 = address && address->sa_family == AF_INET6;
    if (address && address->sa_family == AF_UNIX) {
        strcpy(connection->client_text, "unix");
        return;
    }
    const void *number =
        ipv6 ? (const void *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr
             : (const void *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
    if (address)
        inet_ntop(address->sa_family, number, connection->client_text, HTTP_ADDRESS_BYTES);
}

void connection_open(struct http *http, struct connection *connection)
{
    struct epoll_event hang_up = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    /* If this fails (no memory), the client's hang-up is noticed late, when an answer is sent. */
    (void)epoll_ctl(http->hangup_fd, EPOLL_CTL_ADD, connection->fd, &hang_up);
    note_client(connection);
    connection->http = http;
    connection->phase = PHASE_IDLE;
    connection->since_ms = connection->entered_ms = uv_now(http->loop);
    uv_mutex_lock(&http->idle_mutex);
    TAILQ_INSERT_TAIL(&http->lists[PHASE_IDLE], connection, link);
    uv_mutex_unlock(&http->idle_mutex);
    http->connections++;
    connection_take_place(connection);
    if (!connection->client_counted) /* several of one client came together */
        connection_shut(connection);
}

void connection_close(struct connection *connection)
{
    struct http *http = connection->http;
    uv_mutex_lock(&http->idle_mutex);
    TAILQ_REMOVE(&http->lists[connection->phase], connection, link);
    uv_mutex_unlock(&http->idle_mutex);
    if (connection->hung_up)
        TAILQ_REMOVE(&http->hung_up, connection, hung_up_link);
    connection_give_up_place(connection);
    if (connection->client_counted)
        http_limits_return_address(http->options.limits, connection->client);
    http->connections--;
    free(connection);
}

/* Keeps the list sorted by `since_ms`; nearly always that means appending. */
static void move(struct connection *connection, enum phase phase, uint64_t since_ms)
{
    struct connection_list *lists = connection->http->lists;
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

void connection_enter(struct connection *connection, enum phase phase, uint64_t since_ms)
{
    struct http *http = connection->http;
    bool shared = phase == PHASE_IDLE || connection->phase == PHASE_IDLE;
    if (shared)
        uv_mutex_lock(&http->idle_mutex);
    move(connection, phase, since_ms);
    if (shared)
        uv_mutex_unlock(&http->idle_mutex);
    connection->entered_ms = uv_now(http->loop);
    if (phase == PHASE_LINGERING)
        connection_leave_reserve(connection);
    else if (phase == PHASE_CLOSING)
        connection_give_up_place(connection);
}

/* ---- what has lasted too long ---- */

/* shutdown() fails only if the client has reset the connection, which then is closed anyway. */
void connection_shut(struct connection *connection)
{
    shutdown(connection->fd, SHUT_RDWR);
    http_mhd_ask_to_close(connection);
    connection_enter(connection, PHASE_CLOSING, uv_now(connection->http->loop));
    if (connection->exchange && connection->exchange->stream.begun)
        http_mhd_resume(connection->exchange);
}

static void refuse_late(struct connection *connection)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_TIMEOUT, "the request did not arrive whole in time");
    http_refuse(connection, &err);
}

void connection_expire(struct connection *connection)
{
    if (connection->phase == PHASE_RECEIVING && !connection->given_up)
        refuse_late(connection);
    else if (connection->phase == PHASE_QUEUED)
        http_refuse_queued(connection->exchange);
    else
        connection_shut(connection);
}

bool connection_has_unread_bytes(const struct connection *connection)
{
    int bytes = 0;
    bool pipelined = connection->phase == PHASE_IDLE && connection->held.length > 0;
    return pipelined || (ioctl(connection->fd, FIONREAD, &bytes) == 0 && bytes > 0);
}

/* ---- idle connections give way ---- */

/* A connection counts as idle after this long: before, its first request may be on its way. */
enum { SURELY_IDLE_MS = 10 };

/* Needs the idle mutex. */
static struct connection *longest_idle(struct http *http, uint64_t now_ms)
{
    struct connection *connection;
    TAILQ_FOREACH(connection, &http->lists[PHASE_IDLE], link)
    {
        int unread = 0;
        if (now_ms < connection->since_ms + SURELY_IDLE_MS)
            return NULL;
        /* In this order: its own loop, which may be reading, takes bytes in hand before they leave
         * the socket. */
        if (connection->has_slot && ioctl(connection->fd, FIONREAD, &unread) == 0 && unread == 0 &&
            !connection->in_hand)
            return connection;
    }
    return NULL;
}

static struct http *http_of(struct http_idle *idle)
{
    return (struct http *)((char *)idle - offsetof(struct http, idle));
}

static uint64_t longest_idle_since(struct http_idle *idle, uint64_t now_ms)
{
    struct http *http = http_of(idle);
    uv_mutex_lock(&http->idle_mutex);
    struct connection *connection = longest_idle(http, now_ms);
    uint64_t since_ms = connection ? connection->since_ms : UINT64_MAX;
    uv_mutex_unlock(&http->idle_mutex);
    return since_ms;
}

/* If its own loop is about to read from it, that loop finds it given up. libmicrohttpd learns of it
 * from the socket. */
static bool close_longest_idle(struct http_idle *idle, uint64_t now_ms)
{
    struct http *http = http_of(idle);
    uv_mutex_lock(&http->idle_mutex);
    struct connection *connection = longest_idle(http, now_ms);
    if (connection) {
        connection->given_up = true;
        connection->has_slot = false;
        http_limits_return_slot(http->options.limits);
        shutdown(connection->fd, SHUT_RDWR);
    }
    uv_mutex_unlock(&http->idle_mutex);
    return connection != NULL;
}

void connections_join_limits(struct http *http)
{
    http->idle.since = longest_idle_since;
    http->idle.close = close_longest_idle;
    http_limits_join(http->options.limits, &http->idle);
}

/* ---- clients that hang up ---- */

/* libmicrohttpd does not notice a hang-up while a connection is suspended, nor one that arrived
 * together with the last bytes it read: the connection would keep its slot until a deadline, and
 * its job would be computed for nobody. So each connection is also in an epoll set of ours, which
 * reports nothing but hang-ups. Closing the connection removes it from the set. */
void connections_note_hangups(struct http *http)
{
    struct epoll_event events[64];
    int count;
    while ((count = epoll_wait(http->hangup_fd, events, 64, 0)) > 0) {
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (!connection->hung_up)
                TAILQ_INSERT_TAIL(&http->hung_up, connection, hung_up_link);
            connection->hung_up = true;
            connection->gone |= (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
        }
    }
}

/* How every answer begins, and what may stand before a chunk's size; how often the next byte of it
 * is sent. */
static const char ANSWER[] = "HTTP/1.1 ";
static const char ZEROS[] = "00000000";
enum { PROBE_MS = 1000 };

/* A client may close its sending side and still read (nc -N does). On the wire that looks like a
 * client that has gone, until something is sent to it: then the system of a client that has gone
 * answers with a reset, which is reported like a hang-up. So the answer's first bytes are sent
 * before there is an answer, and http_hooks.c leaves them out of what libmicrohttpd sends later. A
 * client that still reads sees nothing unusual. */
static void probe(struct connection *connection, const char *ahead, unsigned *count)
{
    uint64_t waited = uv_now(connection->http->loop) - connection->entered_ms;
    if (ahead[*count] == '\0' || waited < *count * PROBE_MS)
        return;
    ssize_t sent = connection_send_few(connection, ahead + *count, 1);
    if (sent == 1)
        ++*count;
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        connection->gone = true;
}

/* In chunked answers the probe is a zero in front of the next chunk's size. HTTP/1.0 has no place
 * for a probe: there the next part shows whether the client is there. */
static void check_reader(struct connection *connection)
{
    bool chunked = !connection->framing.head.http_1_0;
    if (chunked && connection->phase == PHASE_WAITING && !connection->gone)
        probe(connection, ZEROS, &connection->probes);
    if (connection->gone)
        connection_shut(connection);
}

static void check_waiting(struct connection *connection)
{
    if (!connection->gone)
        probe(connection, ANSWER, &connection->sent_ahead);
    if (connection->gone && connection->phase == PHASE_QUEUED)
        http_refuse_queued(connection->exchange);
    else if (connection->gone)
        exchange_tell_gone(connection->exchange);
}

static void check_hung_up(struct connection *connection)
{
    bool waits = connection->phase == PHASE_QUEUED || connection->phase == PHASE_WAITING;
    bool idle = connection->phase == PHASE_IDLE || connection->phase == PHASE_RECEIVING;
    bool streams = connection->phase == PHASE_STREAMING ||
                   (connection->phase == PHASE_WAITING && connection->exchange->stream.begun);
    if (streams)
        check_reader(connection);
    else if (waits)
        check_waiting(connection);
    else if (idle && !connection_has_unread_bytes(connection))
        connection_shut(connection);
}

/* A client's last request may still be unread or unparsed, so only connections that have made no
 * progress for a tick are looked at. */
static void give_up_hung_up(struct http *http)
{
    uint64_t now = uv_now(http->loop);
    struct connection *connection = TAILQ_FIRST(&http->hung_up), *next;
    for (; connection; connection = next) {
        next = TAILQ_NEXT(connection, hung_up_link);
        if (now >= connection->since_ms + HTTP_TICK_MS)
            check_hung_up(connection);
    }
}

static bool has_expired(const struct connection *connection, uint64_t timeout_ms)
{
    return connection->given_up ||
           (timeout_ms && uv_now(connection->http->loop) >= connection->since_ms + timeout_ms);
}

void connections_expire(struct http *http)
{
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        uint64_t timeout = http->timeouts_ms[phase];
        struct connection *first;
        while (phase != PHASE_CLOSING && (first = TAILQ_FIRST(&http->lists[phase])) &&
               has_expired(first, timeout))
            connection_expire(first);
    }
    http_readers_expire(http);
    give_up_hung_up(http);
    if (http->draining)
        http_drain_expire(http);
}

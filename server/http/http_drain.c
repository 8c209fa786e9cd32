/* Draining: from serving until the last connection is gone, without losing an accepted request.
 *
 * A request is accepted when it is whole. The first half of the timeout is for requests to become
 * whole, the last tenth is spare. So the drain ends in time whatever clients do; it fails only if
 * an answer that we owe is late. */
#include <linux/filter.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "server/http/http_internal.h"

/* Drops SYNs but not the ACKs of handshakes in progress: closing the listening socket at once would
 * reset clients that already believe they are connected. A client whose SYN is dropped retries
 * after a second and is refused. False where the system does not allow it. */
static bool drop_syns(int fd)
{
    enum { FLAGS_AT = 13, SYN = 0x02, ACK = 0x10 };
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_AT),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    const struct sock_fprog program = {sizeof code / sizeof *code, code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

/* A handshake in progress is complete after one round trip; clients whose round trip is longer than
 * this may still be reset. */
enum { HANDSHAKE_MS = 200 };

/* ---- the backlog ---- */

/* Clients whose connection the kernel has accepted, or is about to, count as accepted by us. Once
 * no more can come, the backlog empties, even if some must wait for a slot. */
static void empty_backlog(struct http *http)
{
    uint64_t since_ms = uv_now(http->loop) - http->drain_since_ms;
    uint64_t limit_ms = http->syns_dropped ? http->drain_timeout_ms / 2 : http->drain_grace_ms;
    bool handshakes = http->syns_dropped && since_ms < HANDSHAKE_MS;
    bool waits = http_listen_waits(http->listen_fd);
    if (since_ms >= limit_ms || (!waits && !handshakes))
        http_stop_listening(http);
}

/* ---- clients that keep us waiting ---- */

/* Connections without a request are closed after a grace period, in which a client learns from its
 * next answer that it must reconnect elsewhere. If the next request is just arriving, it is served.
 */
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
        if (!connection->exchange && !connection_has_unread_bytes(connection))
            connection_expire(connection);
    }
}

/* The time that a client gets to take its answer, even if the answer is late. */
static uint64_t spare_ms(const struct http *http)
{
    return http->drain_timeout_ms / 10;
}

static bool has_just_entered(const struct connection *connection)
{
    const struct http *http = connection->http;
    return uv_now(http->loop) < connection->entered_ms + spare_ms(http);
}

static void expire_all(struct http *http, enum phase phase, uint64_t drained_ms)
{
    struct connection *connection = TAILQ_FIRST(&http->lists[phase]), *next;
    if (uv_now(http->loop) < http->drain_since_ms + drained_ms)
        return;
    for (; connection; connection = next) {
        next = TAILQ_NEXT(connection, link);
        bool takes_answer = phase == PHASE_STREAMING || phase == PHASE_SENDING;
        if (!takes_answer || !has_just_entered(connection))
            connection_expire(connection);
    }
}

void http_drain_expire(struct http *http)
{
    uint64_t last_call_ms = http->drain_timeout_ms - spare_ms(http);
    close_idle(http);
    http_linger_step(http);
    expire_all(http, PHASE_IDLE, http->drain_timeout_ms / 2);
    expire_all(http, PHASE_RECEIVING, http->drain_timeout_ms / 2);
    expire_all(http, PHASE_QUEUED, last_call_ms);
    expire_all(http, PHASE_STREAMING, last_call_ms);
    expire_all(http, PHASE_SENDING, last_call_ms);
    expire_all(http, PHASE_LINGERING, last_call_ms);
}

/* Requests that a client has sent behind this one are answered, too, in the half of the timeout
 * that is for requests to become whole. */
bool http_drain_closes(const struct connection *connection)
{
    const struct http *http = connection->http;
    int unread = 0;
    if (!http->draining)
        return false;
    return uv_now(http->loop) >= http->drain_since_ms + http->drain_timeout_ms / 2 ||
           (connection->held.length == 0 &&
            (ioctl(connection->fd, FIONREAD, &unread) != 0 || unread == 0));
}

/* ---- the steps ---- */

static void end_drain(struct http *http)
{
    void (*on_drained)(void *context) = http->on_drained;
    http->on_drained = NULL;
    if (on_drained)
        on_drained(http->drained_context);
}

void http_drain_step(struct http *http)
{
    if (!http->draining)
        return;
    if (http->listen_fd >= 0)
        empty_backlog(http);
    if (http->listen_fd < 0 && http->connections == 0 && http->unanswered == 0 &&
        TAILQ_EMPTY(&http->lingering))
        end_drain(http);
}

/* Whether the client is owed an answer. */
static bool is_owed(const struct connection *connection, enum phase phase)
{
    return phase == PHASE_SENDING ? has_just_entered(connection) : !connection->gone;
}

static size_t count_lost(struct http *http, enum phase phase,
                         void (*on_lost)(const struct exchange *, void *), void *context)
{
    size_t lost = 0;
    struct connection *connection;
    TAILQ_FOREACH(connection, &http->lists[phase], link)
    {
        if (connection->exchange && is_owed(connection, phase)) {
            on_lost(&connection->exchange->public, context);
            lost++;
        }
    }
    return lost;
}

/* Work for clients that have gone must still come back before anything is closed. */
size_t http_drain_end(struct http *http, void (*on_lost)(const struct exchange *, void *),
                      void *context)
{
    size_t lost = count_lost(http, PHASE_QUEUED, on_lost, context) +
                  count_lost(http, PHASE_WAITING, on_lost, context) +
                  count_lost(http, PHASE_STREAMING, on_lost, context) +
                  count_lost(http, PHASE_SENDING, on_lost, context);
    if (lost > 0)
        http->on_drained = NULL;
    else if (http->unanswered == 0)
        end_drain(http);
    return lost;
}

void http_drain(struct http *http, unsigned grace_ms, unsigned timeout_ms,
                void (*on_drained)(void *context), void *context)
{
    http->draining = true;
    http->timeouts_ms[PHASE_QUEUED] = timeout_ms; /* http_drain_expire() acts earlier */
    if (http->options.given_fd)
        http_stop_listening(http);
    else
        http->syns_dropped = !http->options.path && drop_syns(http->listen_fd);
    http->drain_since_ms = uv_now(http->loop);
    http->drain_grace_ms = grace_ms;
    http->drain_timeout_ms = timeout_ms;
    http->on_drained = on_drained;
    http->drained_context = context;
    http_start_ticking(http);
    http_want_run(http);
}

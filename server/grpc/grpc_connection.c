/* A connection: a socket, perhaps TLS, and a session.
 *
 * The session's bytes are sent before the loop waits (grpc_listener.c), so that all answers of a
 * turn go out together, and no connection is closed while a handler is at work. Like HTTP's, a
 * connection without calls gives way to a new one when every slot is taken. If there is none, a new
 * one enters a small reserve, where only health is told, until a slot is free. Other calls do not
 * wait there as HTTP's do: connections with calls are kept for long. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/grpc/grpc_state.h"
#include "server/http/http_tls.h"

static struct grpc_connection *connection_of(struct grpc_session *session)
{
    return session->owner;
}

/* ---- idle connections give way ---- */

/* A connection counts as idle after this long: before, its first call may be on its way. */
enum { SURELY_IDLE_MS = 10 };

/* Other loops may close what is in the list. So a connection leaves it before it is read from, and
 * comes back when that has begun no call. */
static void note_idle(struct grpc_connection *connection, bool idle)
{
    struct grpc *grpc = connection->grpc;
    if (connection->idle == idle)
        return;
    uv_mutex_lock(&grpc->idle_mutex);
    connection->idle_since_ms = connection->session.idle_since_ms;
    if (idle)
        TAILQ_INSERT_TAIL(&grpc->idle_list, connection, idle_link);
    else
        TAILQ_REMOVE(&grpc->idle_list, connection, idle_link);
    connection->idle = idle;
    uv_mutex_unlock(&grpc->idle_mutex);
}

static struct grpc *grpc_of(struct http_idle *idle)
{
    return (struct grpc *)((char *)idle - offsetof(struct grpc, idle));
}

/* Needs the idle mutex. */
static struct grpc_connection *longest_idle(struct grpc *grpc, uint64_t now_ms)
{
    struct grpc_connection *connection;
    TAILQ_FOREACH(connection, &grpc->idle_list, idle_link)
    {
        int unread = 0;
        if (now_ms < connection->idle_since_ms + SURELY_IDLE_MS)
            return NULL;
        if (connection->has_slot && ioctl(connection->fd, FIONREAD, &unread) == 0 && unread == 0)
            return connection;
    }
    return NULL;
}

static uint64_t longest_idle_since(struct http_idle *idle, uint64_t now_ms)
{
    struct grpc *grpc = grpc_of(idle);
    uv_mutex_lock(&grpc->idle_mutex);
    const struct grpc_connection *connection = longest_idle(grpc, now_ms);
    uint64_t since_ms = connection ? connection->idle_since_ms : UINT64_MAX;
    uv_mutex_unlock(&grpc->idle_mutex);
    return since_ms;
}

static void give_back_slot(struct grpc_connection *connection)
{
    if (atomic_exchange(&connection->has_slot, false))
        http_limits_return_slot(connection->grpc->options.limits);
}

/* Its own loop learns of it from the socket. */
static bool close_longest_idle(struct http_idle *idle, uint64_t now_ms)
{
    struct grpc *grpc = grpc_of(idle);
    uv_mutex_lock(&grpc->idle_mutex);
    struct grpc_connection *connection = longest_idle(grpc, now_ms);
    if (connection) {
        give_back_slot(connection);
        shutdown(connection->fd, SHUT_RDWR);
    }
    uv_mutex_unlock(&grpc->idle_mutex);
    return connection != NULL;
}

void grpc_connections_join_limits(struct grpc *grpc)
{
    grpc->idle.since = longest_idle_since;
    grpc->idle.close = close_longest_idle;
    http_limits_join(grpc->options.limits, &grpc->idle);
}

/* ---- the reserve ---- */

static void leave_reserve(struct grpc_connection *connection)
{
    if (!connection->reserved)
        return;
    TAILQ_REMOVE(&connection->grpc->reserve, connection, reserve_link);
    connection->grpc->reserve_count--;
    connection->reserved = false;
}

static void enter_reserve(struct grpc_connection *connection)
{
    connection->reserved = true;
    TAILQ_INSERT_TAIL(&connection->grpc->reserve, connection, reserve_link);
    connection->grpc->reserve_count++;
}

static bool may_serve(struct grpc_session *session, struct grpc_call *call)
{
    struct grpc_connection *connection = connection_of(session);
    if (!connection->reserved || grpc_call_is_vital(call))
        return true;
    if (!http_limits_take_or_free_slot(connection->grpc->options.limits))
        return false;
    leave_reserve(connection);
    connection->has_slot = true;
    return true;
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void grpc_connection_close(struct grpc_connection *connection)
{
    struct grpc *grpc = connection->grpc;
    note_idle(connection, false);
    leave_reserve(connection);
    grpc_session_close(&connection->session);
    if (connection->wants_flush)
        TAILQ_REMOVE(&grpc->flushes, connection, flush_link);
    TAILQ_REMOVE(&grpc->connections, connection, link);
    /* Before the descriptor, whose number the next accept() of any loop gets. */
    uv_close((uv_handle_t *)&connection->poll, on_closed);
    if (connection->tls)
        http_tls_end(connection->tls);
    http_tls_free(connection->tls);
    close(connection->fd);
    give_back_slot(connection);
    if (connection->address_counted)
        http_limits_return_address(grpc->options.limits, (struct sockaddr *)&connection->address);
    grpc->count--;
}

/* ---- sending ---- */

static void on_output(struct grpc_session *session)
{
    struct grpc_connection *connection = connection_of(session);
    if (connection->wants_flush)
        return;
    connection->wants_flush = true;
    TAILQ_INSERT_TAIL(&connection->grpc->flushes, connection, flush_link);
}

static ssize_t send_bytes(struct grpc_connection *connection)
{
    return connection->tls
               ? http_tls_send(connection->tls, connection->unsent, connection->unsent_length)
               : sendto(connection->fd, connection->unsent, connection->unsent_length,
                        MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
}

/* Gets the next bytes of the session, unless some wait. False: there are none. */
static bool has_unsent(struct grpc_connection *connection)
{
    if (connection->unsent_length > 0)
        return true;
    ssize_t length = grpc_session_take(&connection->session, &connection->unsent);
    connection->failed |= length < 0;
    connection->unsent_length = length > 0 ? (size_t)length : 0;
    return length > 0;
}

/* Returns false when the connection is of no more use. */
static bool send_all(struct grpc_connection *connection)
{
    connection->awaits_writable = false;
    while (has_unsent(connection)) {
        ssize_t sent = send_bytes(connection);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return false;
        if (sent < 0) {
            connection->awaits_writable = true;
            return true;
        }
        connection->moved_ms = grpc_now_ms();
        connection->unsent += sent;
        connection->unsent_length -= (size_t)sent;
    }
    connection->moved_ms = grpc_now_ms();
    return !connection->failed && !grpc_session_is_over(&connection->session);
}

static void on_poll(uv_poll_t *poll, int status, int events);

/* Of one that has failed, and still takes its last answers, nothing is read any more: what it sends
 * on must not wake the loop. */
static int watch(struct grpc_connection *connection)
{
    int events =
        (connection->failed ? 0 : UV_READABLE) | (connection->awaits_writable ? UV_WRITABLE : 0);
    if (events == connection->watched)
        return 0;
    connection->watched = events;
    return uv_poll_start(&connection->poll, events, on_poll);
}

void grpc_connection_flush(struct grpc_connection *connection)
{
    if (connection->heard && !send_all(connection)) {
        grpc_connection_close(connection);
        return;
    }
    note_idle(connection, connection->session.call_count == 0);
    (void)watch(connection); /* the descriptor is a socket: libuv has seen that */
}

/* ---- receiving ---- */

static ssize_t receive_bytes(struct grpc_connection *connection, size_t room)
{
    struct iovec into = {connection->grpc->scratch, room};
    struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1};
    return connection->tls ? http_tls_receive(connection->tls, &into, 1)
                           : recvmsg(connection->fd, &message, MSG_DONTWAIT);
}

/* Reads once, so that a client that always sends leaves the loop to others; but all of what GnuTLS
 * has read ahead, which does not wake the loop. Returns false when the client is gone. */
static bool receive(struct grpc_connection *connection)
{
    size_t room = GRPC_SCRATCH_BYTES;
    while (room > 0 && !connection->failed) {
        ssize_t count = receive_bytes(connection, room);
        if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            return true;
        if (count <= 0)
            return false;
        connection->heard = true;
        if (grpc_session_receive(&connection->session, connection->grpc->scratch, (size_t)count) !=
            0)
            connection->failed = true;
        room = connection->tls ? http_tls_ahead(connection->tls) : 0;
    }
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct grpc_connection *connection = poll->data;
    note_idle(connection, false);
    if (status < 0 || ((events & UV_READABLE) && !receive(connection))) {
        grpc_connection_close(connection);
        return;
    }
    on_output(&connection->session); /* window updates and the like, if nothing else */
}

/* ---- opening ---- */

static void describe_client(struct grpc_connection *connection)
{
    const struct sockaddr_storage *address = &connection->address;
    const void *number = address->ss_family == AF_INET6
                             ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                             : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    inet_ntop(address->ss_family, number, connection->session.client,
              sizeof connection->session.client);
}

void grpc_connection_open(struct grpc *grpc, int fd, const struct sockaddr_storage *address,
                          bool has_slot)
{
    int on = 1;
    struct grpc_connection *connection = xcalloc(1, sizeof *connection);
    connection->grpc = grpc;
    connection->fd = fd;
    connection->address = *address;
    connection->has_slot = has_slot;
    connection->moved_ms = connection->opened_ms = grpc_now_ms();
    connection->poll.data = connection;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (uv_poll_init(grpc->loop, &connection->poll, fd) != 0) {
        close(fd);
        give_back_slot(connection);
        free(connection);
        return;
    }
    connection->tls = grpc->options.tls ? http_tls_new(grpc->options.tls, fd, "h2") : NULL;
    connection->address_counted =
        http_limits_take_address(grpc->options.limits, (const struct sockaddr *)address);
    connection->session = (struct grpc_session){.edge = &grpc->edge,
                                                .tls = connection->tls,
                                                .owner = connection,
                                                .on_output = on_output,
                                                .may_serve = may_serve};
    describe_client(connection);
    grpc_session_open(&connection->session, connection->moved_ms);
    TAILQ_INSERT_TAIL(&grpc->connections, connection, link);
    grpc->count++;
    if (!has_slot)
        enter_reserve(connection);
    note_idle(connection, true);
    if (!connection->address_counted || watch(connection) != 0)
        grpc_connection_close(connection);
}

/* A client that takes nothing for as long as it may be idle is cut. One that has said nothing can
 * be told nothing of a drain. */
void grpc_connection_expire(struct grpc_connection *connection, uint64_t now_ms)
{
    const struct http_options *options = &connection->grpc->options;
    bool stuck =
        connection->awaits_writable && now_ms >= connection->moved_ms + options->idle_timeout_ms;
    bool silent =
        !connection->heard && (connection->session.draining ||
                               now_ms >= connection->moved_ms + options->request_timeout_ms);
    if (stuck || silent)
        grpc_connection_close(connection);
    else
        grpc_session_expire(&connection->session, now_ms);
}

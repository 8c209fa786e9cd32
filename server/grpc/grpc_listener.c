/* The listener of one loop: accepting, the loop's turns, deadlines and the drain. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/grpc/grpc.h"
#include "server/grpc/grpc_state.h"

enum {
    /* New connections in one turn, so that they do not starve the others. */
    ACCEPT_AT_MOST = 16,

    /* How long a connection may stay in a full reserve: a call that was sent at once has come by
     * then. */
    RESERVE_MS = 10,

    /* When descriptors have run out: how soon to try again. */
    EXHAUSTED_MS = 100,
};

/* ---- accepting ---- */

static void on_listening(uv_poll_t *poll, int status, int events);
static void on_tick(uv_timer_t *tick);

static void listen_again(uv_timer_t *pause)
{
    struct grpc *grpc = pause->data;
    if (grpc->listen_fd >= 0 && uv_poll_start(&grpc->listening, UV_READABLE, on_listening) != 0)
        uv_timer_start(pause, listen_again, EXHAUSTED_MS, 0);
}

/* Leaves new connections in the backlog for a while. */
static void pause_listening(struct grpc *grpc, unsigned ms)
{
    if (grpc->draining)
        return;
    uv_poll_stop(&grpc->listening);
    uv_timer_start(&grpc->listen_pause, listen_again, ms, 0);
}

static bool is_exhausted(int reason)
{
    return reason == EMFILE || reason == ENFILE || reason == ENOBUFS || reason == ENOMEM;
}

/* The oldest makes room: health was asked at once, and of the others each call is refused. */
static bool reserve_has_room(struct grpc *grpc)
{
    struct grpc_connection *oldest = TAILQ_FIRST(&grpc->reserve);
    if (grpc->reserve_count < GRPC_RESERVE)
        return true;
    if (grpc_now_ms() < oldest->opened_ms + RESERVE_MS)
        return false;
    grpc_connection_close(oldest);
    return true;
}

/* Returns whether to go on: other errors concern this one connection only (accept(2)). */
static bool accept_one(struct grpc *grpc)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    bool has_slot = http_limits_take_slot(grpc->options.limits);
    if (!has_slot && !http_listen_waits(grpc->listen_fd))
        return false;
    has_slot = has_slot || http_limits_take_or_free_slot(grpc->options.limits);
    if (!has_slot && !reserve_has_room(grpc)) {
        pause_listening(grpc, RESERVE_MS);
        return false;
    }
    int fd = accept4(grpc->listen_fd, (struct sockaddr *)&address, &length,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    int reason = errno;
    if (fd >= 0 && http_limits_admit(grpc->options.limits, (struct sockaddr *)&address)) {
        grpc_connection_open(grpc, fd, &address, has_slot);
        return true;
    }
    if (has_slot)
        http_limits_return_slot(grpc->options.limits);
    if (fd >= 0)
        close(fd);
    else if (is_exhausted(reason)) {
        http_limits_close_idle(grpc->options.limits);
        pause_listening(grpc, EXHAUSTED_MS);
        return false;
    }
    return fd >= 0 || (reason != EAGAIN && reason != EWOULDBLOCK);
}

static void on_listening(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct grpc *grpc = poll->data;
    for (int i = 0; i < ACCEPT_AT_MOST; i++)
        if (!accept_one(grpc))
            break;
    if (!uv_is_active((uv_handle_t *)&grpc->tick)) /* an idle server sleeps */
        uv_timer_start(&grpc->tick, on_tick, GRPC_TICK_MS, GRPC_TICK_MS);
}

static void release(struct grpc *grpc)
{
    if (--grpc->open_handles > 0)
        return;
    uv_mutex_destroy(&grpc->idle_mutex);
    free(grpc->scratch);
    free(grpc);
}

static void on_handle_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void close_handle(struct grpc *grpc, uv_handle_t *handle)
{
    if (handle->type == UV_UNKNOWN_HANDLE || uv_is_closing(handle))
        return;
    grpc->open_handles++;
    uv_close(handle, on_handle_closed);
}

static void stop_listening(struct grpc *grpc)
{
    if (grpc->listen_fd < 0)
        return;
    uv_timer_stop(&grpc->listen_pause);
    close_handle(grpc, (uv_handle_t *)&grpc->listening);
    close(grpc->listen_fd);
    grpc->listen_fd = -1;
}

/* ---- turns and deadlines ---- */

/* Before the loop waits: sends what the turn has made. Closing a connection may answer calls of
 * others, which flushes them too. */
static void on_flush(uv_prepare_t *flush)
{
    struct grpc *grpc = flush->data;
    struct grpc_connection *connection;
    while ((connection = TAILQ_FIRST(&grpc->flushes))) {
        TAILQ_REMOVE(&grpc->flushes, connection, flush_link);
        connection->wants_flush = false;
        grpc_connection_flush(connection);
    }
    bool drained = grpc->draining && grpc->count == 0 && grpc->edge.handed_count == 0;
    if (drained && grpc->on_drained) {
        void (*on_drained)(void *context) = grpc->on_drained;
        grpc->on_drained = NULL;
        on_drained(grpc->drained_context);
    }
}

static void for_each(struct grpc *grpc, void (*act)(struct grpc_session *session))
{
    struct grpc_connection *connection;
    TAILQ_FOREACH(connection, &grpc->connections, link)
    act(&connection->session);
}

static void expire_drain(struct grpc *grpc, uint64_t now_ms)
{
    uint64_t elapsed = now_ms - grpc->drain_since_ms;
    struct grpc_connection *connection;
    TAILQ_FOREACH(connection, &grpc->connections, link)
    if (elapsed >= grpc->drain_grace_ms && !connection->session.draining)
        grpc_session_drain(&connection->session);
    if (elapsed >= grpc->drain_timeout_ms / 2)
        for_each(grpc, grpc_session_refuse_unfinished);
    if (elapsed >= grpc->drain_timeout_ms / 10 * 9)
        for_each(grpc, grpc_session_cut_answers);
}

static void on_tick(uv_timer_t *tick)
{
    struct grpc *grpc = tick->data;
    uint64_t now_ms = grpc_now_ms();
    struct grpc_connection *connection, *next;
    for (connection = TAILQ_FIRST(&grpc->connections); connection; connection = next) {
        next = TAILQ_NEXT(connection, link);
        grpc_connection_expire(connection, now_ms);
    }
    if (grpc->draining)
        expire_drain(grpc, now_ms);
    else if (grpc->count == 0)
        uv_timer_stop(tick);
}

/* ---- life ---- */

static struct grpc *allocate(uv_loop_t *loop, const struct http_options *options,
                             const struct http_callbacks *callbacks)
{
    struct grpc *grpc = xcalloc(1, sizeof *grpc);
    grpc->options = *options;
    grpc->options.host = NULL; /* not kept */
    grpc->callbacks = *callbacks;
    grpc->edge = (struct grpc_edge){.options = &grpc->options, .callbacks = &grpc->callbacks};
    grpc->loop = loop;
    grpc->open_handles = 1; /* end() lets go of this one */
    grpc->scratch = xmalloc(GRPC_SCRATCH_BYTES);
    TAILQ_INIT(&grpc->edge.handed);
    TAILQ_INIT(&grpc->connections);
    TAILQ_INIT(&grpc->flushes);
    TAILQ_INIT(&grpc->reserve);
    TAILQ_INIT(&grpc->idle_list);
    grpc->listening.data = grpc->flush.data = grpc->tick.data = grpc->listen_pause.data = grpc;
    if (uv_mutex_init(&grpc->idle_mutex) != 0)
        out_of_memory();
    return grpc;
}

static int start(struct grpc *grpc, struct error *err)
{
    uv_prepare_init(grpc->loop, &grpc->flush);
    uv_timer_init(grpc->loop, &grpc->tick);
    uv_timer_init(grpc->loop, &grpc->listen_pause);
    int status = uv_poll_init(grpc->loop, &grpc->listening, grpc->listen_fd);
    if (status == 0)
        status = uv_poll_start(&grpc->listening, UV_READABLE, on_listening);
    if (status == 0)
        status = uv_prepare_start(&grpc->flush, on_flush);
    return status == 0
               ? 0
               : error_set(err, ERROR_INTERNAL, "cannot watch sockets: %s", uv_strerror(status));
}

static void end(struct grpc *grpc)
{
    stop_listening(grpc);
    close_handle(grpc, (uv_handle_t *)&grpc->flush);
    close_handle(grpc, (uv_handle_t *)&grpc->tick);
    close_handle(grpc, (uv_handle_t *)&grpc->listen_pause);
    release(grpc);
}

struct grpc *grpc_new(uv_loop_t *loop, const struct http_options *options,
                      const struct http_callbacks *callbacks, struct error *err)
{
    uint16_t port;
    int fd = http_listen(loop, options->host, options->port, options->listening, &port, err);
    if (fd < 0)
        return NULL;
    struct grpc *grpc = allocate(loop, options, callbacks);
    grpc->listen_fd = fd;
    grpc->port = port;
    if (start(grpc, err) == 0) {
        grpc_connections_join_limits(grpc);
        return grpc;
    }
    end(grpc);
    return NULL;
}

/* The loop runs no more turns of ours: connections that are left are closed here. */
void grpc_close(struct grpc *grpc)
{
    struct grpc_connection *connection;
    http_limits_leave(grpc->options.limits, &grpc->idle);
    while ((connection = TAILQ_FIRST(&grpc->connections)))
        grpc_connection_close(connection);
    assert(grpc->edge.handed_count == 0);
    end(grpc);
}

uint16_t grpc_port(const struct grpc *grpc)
{
    return grpc->port;
}

unsigned grpc_connections(const struct grpc *grpc)
{
    return grpc->count;
}

/* ---- draining ---- */

void grpc_drain(struct grpc *grpc, unsigned grace_ms, unsigned timeout_ms,
                void (*on_drained)(void *context), void *context)
{
    grpc->draining = true;
    grpc->drain_since_ms = grpc_now_ms();
    grpc->drain_grace_ms = grace_ms;
    grpc->drain_timeout_ms = timeout_ms;
    grpc->on_drained = on_drained;
    grpc->drained_context = context;
    while (accept_one(grpc)) /* who waits has been told of nothing else */
        ;
    stop_listening(grpc);
    uv_timer_start(&grpc->tick, on_tick, GRPC_TICK_MS, GRPC_TICK_MS);
    for_each(grpc, grpc_session_announce_drain);
}

size_t grpc_drain_end(struct grpc *grpc,
                      void (*on_lost)(const struct exchange *exchange, void *context),
                      void *context)
{
    struct grpc_call *call;
    size_t lost = grpc->edge.handed_count;
    TAILQ_FOREACH(call, &grpc->edge.handed, handed_link)
    on_lost(&call->public, context);
    void (*on_drained)(void *) = grpc->on_drained;
    grpc->on_drained = NULL;
    if (lost == 0 && on_drained)
        on_drained(grpc->drained_context);
    return lost;
}

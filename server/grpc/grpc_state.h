/* The data of one loop's connections, and what server/grpc/grpc_listener.c and grpc_connection.c
 * call in each other. */
#ifndef SERVER_GRPC_STATE_H
#define SERVER_GRPC_STATE_H

#include <stdatomic.h>

#include "server/grpc/grpc.h"
#include "server/grpc/grpc_session.h"

enum {
    /* How often deadlines are looked at. */
    GRPC_TICK_MS = 100,

    /* Connections without a slot. */
    GRPC_RESERVE = 8,

    /* For reading from sockets. */
    GRPC_SCRATCH_BYTES = 64 << 10,
};

struct grpc_connection {
    struct grpc_session session;
    struct grpc *grpc;
    uv_poll_t poll;
    int fd;
    struct http_tls *tls; /* owned; NULL: plain */
    struct sockaddr_storage address;
    bool address_counted;
    atomic_bool has_slot; /* of http_limits; given up by whoever needs it, maybe another loop */
    bool reserved;        /* in grpc->reserve, because there was no slot */
    uint64_t opened_ms;
    bool heard;            /* something has come: with TLS, the handshake is over */
    bool failed;           /* closed once what there is has been sent */
    bool awaits_writable;  /* the socket is full */
    int watched;           /* libuv's events that the poll handle is for */
    const uint8_t *unsent; /* the session's, and the socket does not take them yet */
    size_t unsent_length;
    uint64_t moved_ms;      /* when bytes were last sent, or there were none to send */
    bool idle;              /* in grpc->idle_list */
    uint64_t idle_since_ms; /* the session's, when it came there */
    bool wants_flush;       /* in grpc->flushes */
    TAILQ_ENTRY(grpc_connection) link, flush_link, idle_link, reserve_link;
};

TAILQ_HEAD(grpc_connections, grpc_connection);

struct grpc {
    struct grpc_edge edge;
    struct http_options options;
    struct http_callbacks callbacks;
    uv_loop_t *loop;
    int listen_fd; /* -1 once closed */
    uint16_t port;
    char *scratch; /* GRPC_SCRATCH_BYTES */

    atomic_uint count; /* of connections; other threads may look */
    struct grpc_connections connections, flushes;
    struct grpc_connections reserve; /* the oldest first */
    unsigned reserve_count;
    struct http_idle idle;             /* how the limits see this loop */
    uv_mutex_t idle_mutex;             /* guards the next */
    struct grpc_connections idle_list; /* without calls, the longest idle first */

    uv_poll_t listening;
    uv_prepare_t flush;
    uv_timer_t tick, listen_pause;
    unsigned open_handles;

    bool draining;
    uint64_t drain_since_ms;
    unsigned drain_grace_ms, drain_timeout_ms;
    void (*on_drained)(void *context); /* NULL: not asked, or called */
    void *drained_context;
};

/* Serves a socket that was accepted, whose slot is taken; or, without one, in the reserve. */
void grpc_connection_open(struct grpc *grpc, int fd, const struct sockaddr_storage *address,
                          bool has_slot);

/* Closes it, whatever is under way. */
void grpc_connection_close(struct grpc_connection *connection);

/* Sends what there is; may close it. */
void grpc_connection_flush(struct grpc_connection *connection);

/* Acts on what has lasted too long; may close it. */
void grpc_connection_expire(struct grpc_connection *connection, uint64_t now_ms);

/* For http_limits: the connections of this loop that are idle. */
void grpc_connections_join_limits(struct grpc *grpc);

#endif

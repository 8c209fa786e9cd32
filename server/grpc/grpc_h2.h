/* The data of a session, which is HTTP/2 with one client. */
#ifndef SERVER_GRPC_H2_H
#define SERVER_GRPC_H2_H

#include "server/grpc/grpc_call.h"

struct nghttp2_session;
struct http_tls;

enum {
    /* Calls at a time. Each can hold a message, and has a place in the queue of its model. */
    GRPC_MAX_STREAMS = 100,

    /* What a client may send before the server has looked at it. What was looked at counts in the
     * limit of all bodies. */
    GRPC_STREAM_WINDOW_BYTES = 1 << 20,
    GRPC_SESSION_WINDOW_BYTES = 4 << 20,

    /* Frames that make work and bring no call further (pings, settings, resets, empty data): so
     * many at once, then so many a second. A client that sends more is sent away. */
    GRPC_IDLE_FRAMES_AT_ONCE = 1000,
    GRPC_IDLE_FRAMES_PER_SECOND = 200,
};

struct grpc_session {
    struct nghttp2_session *h2;
    struct grpc_edge *edge;
    const struct http_tls *tls; /* NULL: plain */
    char client[HTTP_ADDRESS_BYTES];
    struct grpc_calls calls; /* whose streams are open */
    size_t call_count;
    uint64_t idle_since_ms; /* when the last call ended */
    uint64_t frames_ms;     /* when idle frames were last counted */
    uint64_t frames;        /* that it may still send, in thousandths */
    bool expired;           /* told to go */
    bool draining;          /* no new calls: over with the last one */
    void *owner;
    void (*on_output)(struct grpc_session *session); /* there may be bytes to take */
    bool (*may_serve)(struct grpc_session *session, struct grpc_call *call);
};

#endif

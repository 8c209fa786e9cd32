/* A gRPC client by hand: frames of HTTP/2, with header fields as HPACK writes them without its
 * tables; and a session in the process, whose handler keeps or answers what it gets. */
#ifndef TEST_GRPC_FRAMES_H
#define TEST_GRPC_FRAMES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/buffer.h"
#include "server/grpc/grpc_session.h"

enum {
    FRAME_DATA,
    FRAME_HEADERS,
    FRAME_RST_STREAM = 3,
    FRAME_SETTINGS,
    FRAME_PING = 6,
    FRAME_GOAWAY
};
enum { FLAG_END_STREAM = 1, FLAG_END_HEADERS = 4 };

#define SERVICE "/inference.GRPCInferenceService/"

/* ---- frames ---- */

static inline void put_frame(struct buffer *out, int type, int flags, uint32_t stream,
                             const void *bytes, size_t length)
{
    const unsigned char head[9] = {
        (unsigned char)(length >> 16), (unsigned char)(length >> 8), (unsigned char)length,
        (unsigned char)type,           (unsigned char)flags,         (unsigned char)(stream >> 24),
        (unsigned char)(stream >> 16), (unsigned char)(stream >> 8), (unsigned char)stream};
    buffer_append(out, head, sizeof head);
    buffer_append(out, bytes, length);
}

static inline void put_preface(struct buffer *out)
{
    buffer_text(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    put_frame(out, FRAME_SETTINGS, 0, 0, NULL, 0);
}

/* A literal field without indexing; texts have fewer than 127 bytes. */
static inline void put_field(struct buffer *block, const char *name, const char *value)
{
    unsigned char length = (unsigned char)strlen(name);
    buffer_append(block, "\0", 1);
    buffer_append(block, &length, 1);
    buffer_text(block, name);
    length = (unsigned char)strlen(value);
    buffer_append(block, &length, 1);
    buffer_text(block, value);
}

/* The header of a call; `extra` is one more field, unless NULL. */
static inline void put_call(struct buffer *out, uint32_t stream, const char *path,
                            const char *extra, const char *value)
{
    struct buffer block;
    buffer_init(&block, 1 << 16);
    put_field(&block, ":method", "POST");
    put_field(&block, ":scheme", "http");
    put_field(&block, ":path", path);
    put_field(&block, ":authority", "localhost");
    put_field(&block, "content-type", "application/grpc");
    put_field(&block, "te", "trailers");
    if (extra)
        put_field(&block, extra, value);
    put_frame(out, FRAME_HEADERS, FLAG_END_HEADERS, stream, block.data, block.length);
    buffer_close(&block);
}

/* The only message of a call, and the end of its request. */
static inline void put_message(struct buffer *out, uint32_t stream, const void *bytes,
                               size_t length)
{
    struct buffer data;
    const unsigned char prefix[5] = {0, (unsigned char)(length >> 24),
                                     (unsigned char)(length >> 16), (unsigned char)(length >> 8),
                                     (unsigned char)length};
    buffer_init(&data, 1 << 20);
    buffer_append(&data, prefix, sizeof prefix);
    buffer_append(&data, bytes, length);
    put_frame(out, FRAME_DATA, FLAG_END_STREAM, stream, data.data, data.length);
    buffer_close(&data);
}

/* ---- the server's side ---- */

struct peer {
    struct http_options options;
    struct http_callbacks callbacks;
    struct grpc_edge edge;
    struct grpc_session session;
    struct exchange *kept; /* the last one that the handler has not answered */
    unsigned requests, finished, gone;
    bool keep;                    /* leave requests to the test */
    int status;                   /* of the last that finished */
    char error[ERROR_TEXT_BYTES]; /* of it; "": none */
    char path[128];               /* of the last request, as its route */
};

static inline void peer_on_gone(struct exchange *exchange)
{
    struct peer *peer = exchange->owner;
    peer->gone++;
}

static inline void peer_answer(struct exchange *exchange)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    buffer_text(&body, "{\"live\":true,\"ready\":true}");
    exchange_reply(exchange, 200, NULL, &body);
    buffer_close(&body);
}

static inline void peer_on_request(struct exchange *exchange, void *context)
{
    struct peer *peer = context;
    peer->requests++;
    snprintf(peer->path, sizeof peer->path, "%s", exchange->path);
    exchange->owner = peer;
    exchange->on_disconnect = peer_on_gone;
    peer->kept = exchange;
    if (!peer->keep)
        peer_answer(exchange);
}

static inline void peer_on_finished(const struct exchange *exchange, uint64_t duration_ns,
                                    void *context)
{
    struct peer *peer = context;
    (void)duration_ns;
    peer->finished++;
    peer->status = exchange->status;
    snprintf(peer->error, sizeof peer->error, "%s",
             exchange->error_text ? exchange->error_text : "");
}

static inline int peer_on_header(struct exchange *exchange, void *context, struct error *err)
{
    (void)context;
    const char *token = exchange_header_in(exchange, "Authorization");
    if (!token)
        return 0;
    exchange_literal_header(exchange, "WWW-Authenticate", "Bearer");
    return error_set(err, ERROR_UNAUTHENTICATED, "not known: %.40s", token);
}

static inline bool peer_may_serve(struct grpc_session *session, struct grpc_call *call)
{
    (void)session, (void)call;
    return true;
}

static inline void peer_on_output(struct grpc_session *session)
{
    (void)session;
}

static inline void peer_open(struct peer *peer, struct http_limits *limits)
{
    *peer = (struct peer){.options = {.limits = limits,
                                      .max_body_bytes = 4096,
                                      .request_timeout_ms = 1000,
                                      .idle_timeout_ms = 1000},
                          .callbacks = {.context = peer,
                                        .on_header = peer_on_header,
                                        .on_request = peer_on_request,
                                        .on_finished = peer_on_finished}};
    peer->edge = (struct grpc_edge){.options = &peer->options, .callbacks = &peer->callbacks};
    TAILQ_INIT(&peer->edge.handed);
    peer->session = (struct grpc_session){.edge = &peer->edge,
                                          .client = "127.0.0.1",
                                          .owner = peer,
                                          .on_output = peer_on_output,
                                          .may_serve = peer_may_serve};
    grpc_session_open(&peer->session, uv_hrtime() / 1000000);
}

/* Appends all that the session has to send. -1: it is broken. */
static inline int peer_take(struct peer *peer, struct buffer *out)
{
    const uint8_t *bytes;
    ssize_t length;
    while ((length = grpc_session_take(&peer->session, &bytes)) > 0)
        buffer_append(out, bytes, (size_t)length);
    return length < 0 ? -1 : 0;
}

#endif

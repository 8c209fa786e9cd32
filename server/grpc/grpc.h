/* gRPC: HTTP/2 connections of one loop, and the calls on them as exchanges (server/http/http.h).
 *
 * A call of GRPCInferenceService asks what a route of HTTP asks (grpc_method.h). So it is handed
 * over as an exchange of that route, whose answer, a document or an error, is written as gRPC has
 * it (grpc_answer.h). Who handles it need not know.
 *
 * What a client does wrong before its call is whole is answered here and never reaches the handler;
 * it is logged and counted through `on_finished` like every other call. */
#ifndef SERVER_GRPC_H
#define SERVER_GRPC_H

#include "server/http/http.h"

struct grpc;

/* Listens, and serves when the loop runs. The options are those of HTTP; its `path` is not looked
 * at. NULL with an error. */
MUST_CHECK struct grpc *grpc_new(uv_loop_t *loop, const struct http_options *options,
                                 const struct http_callbacks *callbacks, struct error *err);

/* The port actually bound. */
uint16_t grpc_port(const struct grpc *grpc);

/* Any thread. */
unsigned grpc_connections(const struct grpc *grpc);

/* First step of a drain: what http_drain() is for HTTP. Clients are told (GOAWAY), and may begin
 * calls for another `grace_ms`. */
void grpc_drain(struct grpc *grpc, unsigned grace_ms, unsigned timeout_ms,
                void (*on_drained)(void *context), void *context);

/* Last step, as http_drain_end(). */
size_t grpc_drain_end(struct grpc *grpc,
                      void (*on_lost)(const struct exchange *exchange, void *context),
                      void *context);

/* As http_close(): every call must be answered; `grpc` is freed when the loop has run once more. */
void grpc_close(struct grpc *grpc);

#endif

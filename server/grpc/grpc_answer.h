/* Answers: header, message and trailers of a call's stream. */
#ifndef SERVER_GRPC_ANSWER_H
#define SERVER_GRPC_ANSWER_H

#include "server/grpc/grpc_h2.h"

/* What exchange_reply() and the like do for a call. */
extern const struct exchange_edge grpc_answer_edge;

/* Answers a call that the handler never had. */
void grpc_answer_error(struct grpc_call *call, const struct error *err);

/* Answers with a status of HTTP only: what asked was no call of gRPC. */
void grpc_answer_status(struct grpc_call *call, int status, const char *text);

#endif

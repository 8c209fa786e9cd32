/* The half of protocol_grpc that reads. */
#ifndef PROTO_GRPC_INFER_H
#define PROTO_GRPC_INFER_H

#include "proto/protocol.h"

MUST_CHECK int grpc_infer_decode(const struct signature *signature, const struct infer_body *body,
                                 const struct infer_limits *limits, struct infer_request *request,
                                 struct error *err);

#endif

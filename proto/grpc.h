/* The Open Inference Protocol over gRPC (package `inference`): messages <-> what the protocol over
 * HTTP has. proto/inference.proto declares the messages, with the field numbers of Triton's.
 *
 * A message and a JSON document of the protocol say the same in two notations. So requests are
 * written as their JSON and read by the decoders of HTTP, which alone know what is valid, and
 * documents are written as messages from their JSON. Tensors take no such detour: an input's bytes
 * are read where they lie in the message, and results are copied into the answer. */
#ifndef PROTO_GRPC_H
#define PROTO_GRPC_H

#include "proto/protocol.h"

/* ModelInfer. Answers have all tensors in raw_output_contents. */
extern const struct protocol protocol_grpc;

enum grpc_question {
    GRPC_NOTHING,
    GRPC_MODEL,   /* of a model and perhaps a version */
    GRPC_TENSORS, /* ModelInferRequest */
    GRPC_INDEX,
    GRPC_CHANGE, /* of the repository */
    GRPC_SERVICE /* of a health check */
};

enum { GRPC_NAME_BYTES = 256, GRPC_VERSION_BYTES = 32 };

/* What a request is about. */
struct grpc_request {
    char name[GRPC_NAME_BYTES];       /* "": none */
    char version[GRPC_VERSION_BYTES]; /* "": none */
    struct buffer json;               /* the body that the same request has over HTTP */
};

/* Fills the request; of GRPC_TENSORS only name and version. On error there is nothing to close. */
MUST_CHECK int grpc_decode(enum grpc_question question, const char *message, size_t length,
                           struct grpc_request *request, struct error *err);

enum grpc_answer {
    GRPC_EMPTY,
    GRPC_LIVE,
    GRPC_READY,
    GRPC_SERVING, /* of a health check */
    GRPC_SERVER_METADATA,
    GRPC_MODEL_METADATA,
    GRPC_MODEL_CONFIG,
    GRPC_STATISTICS,
    GRPC_INDEX_ENTRIES
};

/* Appends the message that says what one of the protocol's documents says. Members that the message
 * has no field for are left out. */
MUST_CHECK int grpc_encode(enum grpc_answer answer, const char *json, size_t length,
                           struct buffer *message, struct error *err);

#endif

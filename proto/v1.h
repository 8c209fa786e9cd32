/* KServe V1 / TensorFlow Serving predict: {"instances": [...]} -> {"predictions": [...]}. */
#ifndef PROTO_V1_H
#define PROTO_V1_H

#include "proto/protocol.h"

/* POST /v1/models/M:predict; struct protocol documents both functions. Answers are never binary. */
MUST_CHECK int v1_decode(const struct signature *signature, const struct infer_body *body,
                         const struct infer_limits *limits, struct infer_request *request,
                         struct error *err);
MUST_CHECK int v1_encode(const struct infer_request *request, const struct infer_result *result,
                         struct buffer *body, size_t *json_length, struct error *err);

extern const struct protocol protocol_v1;

/* What KServe's clients ask for: {"name", "ready"}. */
void v1_model_ready(const char *model, bool ready, struct buffer *body);

/* GET /v1/models/M: the same, and for TensorFlow Serving's clients the versions that are served. */
void v1_model_status(const char *model, bool ready, const char *const *versions, size_t count,
                     struct buffer *body);

#endif

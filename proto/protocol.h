/* An inference protocol is a row of functions: one decodes a request's body into plain structs, one
 * encodes the body of the answer. oip.h and v1.h declare one protocol each. */
#ifndef PROTO_PROTOCOL_H
#define PROTO_PROTOCOL_H

#include "proto/infer.h"

/* The body of a request as received. */
struct infer_body {
    const char *bytes;
    size_t length;
    const char *json_length; /* request header Inference-Header-Content-Length; NULL: absent */
};

struct protocol {
    const char *name; /* in logs and metrics */
    /* Fills `request`, which borrows the body; the caller closes it. On error there is nothing to
     * close. */
    int (*decode)(const struct signature *signature, const struct infer_body *body,
                  const struct infer_limits *limits, struct infer_request *request,
                  struct error *err);
    /* Appends the answer: JSON, then binary tensors. `*json_length` receives the bytes of JSON if
     * any output is binary (the answer's Inference-Header-Content-Length; its content type is then
     * application/octet-stream), else 0. */
    int (*encode)(const struct infer_request *request, const struct infer_result *result,
                  struct buffer *body, size_t *json_length, struct error *err);
};

#endif

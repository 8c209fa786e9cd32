/* Open Inference Protocol V2 (KServe, Triton): bytes <-> plain structs. proto/PROTOCOL.md says
 * what is accepted and answered. */
#ifndef PROTO_OIP_H
#define PROTO_OIP_H

#include "proto/protocol.h"

/* POST /v2/models/M/infer; struct protocol documents both functions. */
MUST_CHECK int oip_decode(const struct signature *signature, const struct infer_body *body,
                          const struct infer_limits *limits, struct infer_request *request,
                          struct error *err);
MUST_CHECK int oip_encode(const struct infer_request *request, const struct infer_result *result,
                          struct buffer *body, size_t *json_length, struct error *err);

extern const struct protocol protocol_oip;

/* The protocol's JSON documents. */
void oip_server_metadata(const char *version, struct buffer *body);
void oip_model_metadata(const struct signature *signature, const char *const *versions,
                        size_t version_count, struct buffer *body);
void oip_model_config(const struct signature *signature, size_t max_batch_rows,
                      uint64_t max_queue_delay_us, struct buffer *body);

#endif

/* Open Inference Protocol V2 (KServe, Triton): bytes <-> plain structs. proto/PROTOCOL.md says
 * what is accepted and answered. */
#ifndef PROTO_OIP_H
#define PROTO_OIP_H

#include "proto/infer.h"

/* Decodes the body of POST /v2/models/M/infer. `header_length` is the text of the request header
 * Inference-Header-Content-Length, NULL when absent: bytes of JSON before the binary tensor data.
 * On success fills `request` (close it); on error leaves nothing to close. */
int oip_decode(const struct signature *signature, const char *body, size_t length,
               const char *header_length, const struct infer_limits *limits,
               struct infer_request *request, struct error *err);

/* Appends the answer: JSON, then the binary tensors. `*json_length` receives the bytes of JSON when
 * any output is binary (the value of Inference-Header-Content-Length; the content type is then
 * application/octet-stream), else 0. */
int oip_encode(const struct infer_request *request, const struct infer_result *result,
               struct buffer *body, size_t *json_length, struct error *err);

/* Documents of the protocol, JSON. */
void oip_server_metadata(const char *version, struct buffer *body);
void oip_model_metadata(const struct signature *signature, const char *const *versions,
                        size_t version_count, struct buffer *body);
void oip_model_config(const struct signature *signature, size_t max_batch_rows,
                      uint64_t max_queue_delay_us, struct buffer *body);

#endif

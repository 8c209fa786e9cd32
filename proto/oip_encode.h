/* What encoders of the Open Inference Protocol's answers share. */
#ifndef PROTO_OIP_ENCODE_H
#define PROTO_OIP_ENCODE_H

#include "proto/oip_outputs.h"

/* The output as it is answered: if the request asks for classes, `top` strings for each row;
 * `*top` 0: numbers. */
struct oip_output oip_answered(const struct infer_request *request,
                               const struct infer_output *requested, size_t *top);

/* Appends the output as binary tensor data. */
void oip_append_binary(const struct infer_request *request, const struct infer_result *result,
                       const struct infer_output *requested, struct buffer *binary);

#endif

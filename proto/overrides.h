/* What a request asks of the model's gates instead of their own decision: "experts", an object of
 * gates by name.
 *
 *     {"<gate>": {"exclude": [3], "silence": [0], "only": [1, 2], "top_k": 1}}
 *
 * The lists hold the layer's indices. What a gate makes of it is decided elsewhere
 * (core/intervention.h): here it is checked that gates and experts exist. */
#ifndef PROTO_OVERRIDES_H
#define PROTO_OVERRIDES_H

#include <jansson.h>

#include "proto/envelope.h"
#include "proto/infer.h"

/* Reads the member "experts" of the body. */
MUST_CHECK int overrides_read_member(struct envelope *envelope, struct infer_request *request,
                                     struct error *err);

/* Reads the parameter "experts", a string that holds the object: parameters of the Open Inference
 * Protocol are no objects. */
MUST_CHECK int overrides_read_parameter(const json_t *parameters, struct infer_request *request,
                                        struct error *err);

/* Reads the object itself. Messages begin with 'experts' in quotes. On failure, too, the overrides
 * are to be closed. */
MUST_CHECK int overrides_read(const json_t *object, const struct signature *signature,
                              struct infer_overrides *overrides, struct error *err);

#endif

/* Parameters: maps from names to one value each, of ModelInfer and of the repository. */
#ifndef PROTO_GRPC_PARAMETERS_H
#define PROTO_GRPC_PARAMETERS_H

#include "proto/wire.h"

/* Appends one entry of a map as a member of a JSON object, with a comma before it unless it is the
 * first. The string "labels" stands for the list that it holds, if `labels` is set: parameters of
 * gRPC are no lists. */
MUST_CHECK int grpc_append_parameter(const struct wire_reader *outer,
                                     const struct wire_field *entry, bool labels, bool first,
                                     struct buffer *json, struct error *err);

/* Whether the entry of a map has this name. */
bool grpc_parameter_is(const struct wire_reader *outer, const struct wire_field *entry,
                       const char *name);

/* Appends a string field as a JSON string. */
MUST_CHECK int grpc_append_string(const struct wire_field *field, const char *what,
                                  struct buffer *json, struct error *err);

#endif

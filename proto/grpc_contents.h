/* InferTensorContents: the numbers of an input, or its words, in the field of their type. */
#ifndef PROTO_GRPC_CONTENTS_H
#define PROTO_GRPC_CONTENTS_H

#include "proto/datatype.h"
#include "proto/oip_decode.h"
#include "proto/wire.h"

/* Reads contents as the elements of a binary tensor. `*datatype` says what the input declares, and
 * receives what the elements are: integers are widened to 32 or 64 bits. `*tensor` points into the
 * message where the numbers lie there in one piece, else into `*owned`, which the caller frees.
 * More than `limit` elements are refused. On error there is nothing to free. */
MUST_CHECK int grpc_read_contents(struct wire_reader contents, enum datatype *datatype,
                                  size_t limit, struct oip_tensor *tensor, char **owned,
                                  struct error *err);

#endif

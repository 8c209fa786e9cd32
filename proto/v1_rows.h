/* The forms that V1 rows come in: instances as values or as objects of named inputs, and columns.
 */
#ifndef PROTO_V1_ROWS_H
#define PROTO_V1_ROWS_H

#include "proto/envelope.h"
#include "proto/infer.h"

/* Finds the data of every input, and the number of rows, in "instances" or "inputs" of the
 * envelope's root. Fills request->inputs, rows, columns and texts. */
MUST_CHECK int v1_decode_rows(struct envelope *envelope, const struct infer_limits *limits,
                              struct infer_request *request, struct error *err);

#endif

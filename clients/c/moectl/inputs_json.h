/* Rows in JSON, in the forms in which requests are written. */
#ifndef MOECTL_INPUTS_JSON_H
#define MOECTL_INPUTS_JSON_H

#include "clients/c/moectl/npy.h"

/* A list of rows, {"instances": rows}, {"inputs": [{"name", "data"}, ...]} or {"name": rows, ...}.
 */
MUST_CHECK int json_arrays(const char *text, size_t length, struct arrays *arrays,
                           struct moed_client_error *err);

#endif

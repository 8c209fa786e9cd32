/* The model repository extension of the Open Inference Protocol, as in Triton: requests about a
 * repository, and their answers. */
#ifndef PROTO_OIP_REPOSITORY_H
#define PROTO_OIP_REPOSITORY_H

#include <stdbool.h>

#include "core/error.h"
#include "proto/buffer.h"

/* POST /v2/repository/index: {"ready": true} asks for what is served only. An empty body is one of
 * no members. */
MUST_CHECK int oip_decode_index(const char *body, size_t length, bool *ready_only,
                                struct error *err);

/* POST /v2/repository/models/M/load and /unload. Parameters that would give a model another
 * configuration or other files than the repository's are refused. */
MUST_CHECK int oip_decode_change(const char *body, size_t length, struct error *err);

/* One entry of the index, which is a list; `version` "": none is known. */
void oip_append_index_entry(struct buffer *body, const char *name, const char *version,
                            const char *state, const char *reason);

#endif

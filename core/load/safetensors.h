/* Weights on disk: one safetensors file or several with an index, mapped read-only.
 *
 * The files are untrusted: a tensor found here lies wholly inside its mapping, has as many bytes as
 * its shape needs, and shares none with another tensor. Nothing is copied; pages are read when the
 * weights are first used. A file that is truncated in place while mapped kills the process
 * (SIGBUS), so checkpoints are replaced by rename, never rewritten. */
#ifndef CORE_SAFETENSORS_H
#define CORE_SAFETENSORS_H

#include "core/load/tensor.h"

struct safetensors;

/* Opens <directory>/model.safetensors, or model.safetensors.index.json with its shards. */
MUST_CHECK struct safetensors *safetensors_open(const char *directory, struct error *err);
void safetensors_free(struct safetensors *file);

/* NULL when there is none of that name. Borrowed. */
struct tensor *safetensors_find(const struct safetensors *file, const char *name);

/* The first tensor, in order of names, that nothing has claimed; NULL when all are used. */
const struct tensor *safetensors_unused(const struct safetensors *file);

/* The name of the file that says which tensors there are. Borrowed, literal. */
const char *safetensors_name(const struct safetensors *file);

#endif

/* Weights on disk: one safetensors file or several with an index, mapped read-only.
 *
 * The files are untrusted: every tensor is checked to lie inside its mapping, to have as many bytes
 * as its shape needs, and to share none with another tensor. Nothing is copied; pages are read when
 * the weights are first used. A file that is truncated in place while mapped kills the process
 * (SIGBUS), so checkpoints are replaced by rename, never rewritten. */
#ifndef CORE_SAFETENSORS_H
#define CORE_SAFETENSORS_H

#include "core/load/tensor.h"

struct safetensors;

/* Opens <directory>/model.safetensors, or model.safetensors.index.json with its shards. */
MUST_CHECK struct safetensors *safetensors_open(const char *directory, struct error *err);
void safetensors_free(struct safetensors *file);

/* The tensor of that name, or NULL. Borrowed. */
struct tensor *safetensors_find(const struct safetensors *file, const char *name);

/* The first tensor, ordered by name, that no layer has claimed; NULL if all are used. */
const struct tensor *safetensors_unused(const struct safetensors *file);

/* The name of the file that lists the tensors. Borrowed; a literal. */
const char *safetensors_name(const struct safetensors *file);

#endif

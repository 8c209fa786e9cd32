/* Weights on disk: one safetensors file or several with an index, mapped read-only or copied.
 *
 * The files are untrusted: every tensor is checked to lie inside its file, to have as many bytes
 * as its shape needs, and to share none with another tensor. Pages of a mapped file are read when
 * the weights are first used; what happens when it is truncated is in core/load/file_map.h. */
#ifndef CORE_SAFETENSORS_H
#define CORE_SAFETENSORS_H

#include "core/load/tensor.h"

struct safetensors;

/* Opens <directory>/model.safetensors, or model.safetensors.index.json with its shards. */
MUST_CHECK struct safetensors *safetensors_open(const char *directory, bool copy,
                                                struct error *err);
void safetensors_free(struct safetensors *file);

/* Whether any file was truncated while it was mapped (core/load/file_map.h). Any thread. */
bool safetensors_are_damaged(const struct safetensors *file);

/* The tensor of that name, or NULL. Borrowed. */
struct tensor *safetensors_find(const struct safetensors *file, const char *name);

/* All tensors, ordered by name; NULL after the last. Borrowed. */
struct tensor *safetensors_at(const struct safetensors *file, size_t index);

/* The first tensor, ordered by name, that no layer has claimed; NULL if all are used. */
const struct tensor *safetensors_unused(const struct safetensors *file);

/* The name of the file that lists the tensors. Borrowed; a literal. */
const char *safetensors_name(const struct safetensors *file);

#endif

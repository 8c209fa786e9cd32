/* Finds a layer's tensors by name in its scope, checks them, and claims each once. */
#ifndef CORE_WEIGHTS_H
#define CORE_WEIGHTS_H

#include "core/layers/scope.h"
#include "core/shape.h"

/* Looks up <prefix><suffix> without claiming it; NULL if there is none. */
const struct tensor *tensor_peek(const struct scope *scope, const char *suffix);

/* Claims a tensor without converting it, for weights that will be packed; NULL with an error. */
MUST_CHECK struct tensor *tensor_claim(const struct scope *scope, const char *suffix,
                                       struct error *err);
MUST_CHECK int tensor_expect(const struct tensor *tensor, const struct moed_shape *shape,
                             struct error *err);

/* A weight as f32: the mapping itself if it is F32 and aligned, else a converted copy. */
struct array {
    const float *values; /* NULL: absent */
    float *owned;
    size_t count;
    size_t mapped_bytes; /* 0: they are not in a file */
};

/* Claims the tensor <prefix><suffix>, which must have that shape, and charges the scope for it. */
MUST_CHECK int array_build(struct array *array, const struct scope *scope, const char *suffix,
                           const struct moed_shape *shape, struct error *err);

/* Like array_build(), but leaves array->values NULL if there is no such tensor. */
MUST_CHECK int array_build_optional(struct array *array, const struct scope *scope,
                                    const char *suffix, const struct moed_shape *shape,
                                    struct error *err);
void array_close(struct array *array);

#endif

/* A matrix with an optional bias, the weights of every op that multiplies vectors by tensors:
 * y = x W^T + b, W [n, k], b [n]. */
#ifndef CORE_PROJECTION_H
#define CORE_PROJECTION_H

#include "core/layers/layer.h"

struct projection {
    struct gemm gemm;
    struct array bias;
};

/* Claims and packs the tensors <prefix><layer>.<weight> and, where the file has it, .<bias> (NULL:
 * never). `n` 0: as many outputs as the tensor has. Counts parameters and bytes on the layer; the
 * multiply-adds are the caller's, who knows how often it is applied. */
int projection_build(struct projection *projection, struct layer *layer, const struct build *build,
                     const char *weight, const char *bias, size_t n, size_t k, struct error *err);

/* x: [vectors, k], y: [vectors, n]. */
void projection_forward(const struct projection *projection, size_t vectors, const float *x,
                        float *y);
void projection_close(struct projection *projection);

#endif

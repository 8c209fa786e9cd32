/* A matrix with an optional bias, the weights of every op that multiplies vectors by tensors:
 * y = x W^T + b, W [n, k], b [n]. */
#ifndef CORE_PROJECTION_H
#define CORE_PROJECTION_H

#include "core/dense/gemm.h"
#include "core/layers/weights.h"

struct projection {
    struct gemm gemm;
    struct array bias;
};

/* Claims and packs the tensor <prefix><suffix>; `n` 0: as many outputs as it has. Charges the scope
 * for the weights; the multiply-adds are the caller's to count, who knows how often it is applied.
 */
MUST_CHECK int projection_build(struct projection *projection, const struct scope *scope,
                                const char *suffix, size_t n, size_t k, struct error *err);

/* The bias of a built projection, where there is such a tensor. */
MUST_CHECK int projection_build_bias(struct projection *projection, const struct scope *scope,
                                     const char *suffix, struct error *err);

/* x: [vectors, k], y: [vectors, n]. */
void projection_forward(const struct projection *projection, size_t vectors, const float *x,
                        float *y);
void projection_close(struct projection *projection);

#endif

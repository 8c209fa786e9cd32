/* A matrix with an optional bias: the weights of every op that multiplies vectors: y = x W^T + b, W
 * [n, k], b [n]. */
#ifndef CORE_PROJECTION_H
#define CORE_PROJECTION_H

#include "core/dense/gemm.h"
#include "core/dense/team.h"
#include "core/layers/weights.h"

struct projection {
    struct gemm gemm;
    struct array bias;
};

/* Claims and packs the tensor <prefix><suffix>; with `n` 0, whatever outputs it has. Charges the
 * scope for the weights. The caller counts the multiply-adds, because it knows how often the matrix
 * is applied. */
MUST_CHECK int projection_build(struct projection *projection, const struct scope *scope,
                                const char *suffix, size_t n, size_t k, struct error *err);

/* Builds the bias of a built projection, if there is such a tensor. */
MUST_CHECK int projection_build_bias(struct projection *projection, const struct scope *scope,
                                     const char *suffix, struct error *err);

/* x: [vectors, k], y: [vectors, n]. */
void projection_forward(const struct projection *projection, size_t vectors, const float *x,
                        float *y);

/* The same, its outputs shared out among the threads of `team`, which may be NULL: each reads
 * weights of its own, which is what takes time if vectors are few. */
void projection_share(const struct projection *projection, struct moed_team *team, size_t vectors,
                      const float *x, float *y);

/* Whether that pays for a single vector: a layer of such a matrix is collective. */
bool projection_is_large(const struct projection *projection);

/* In how many parts outputs are shared out. */
size_t projection_parts(const struct moed_team *team);

void projection_close(struct projection *projection);

#endif

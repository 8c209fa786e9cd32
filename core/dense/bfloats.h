/* Products of BF16: weights as they are stored, and inputs rounded to the nearest alike, two at a
 * time.
 *
 *   y[r, i] = bias[i] + sum over pairs of inputs, upwards, of x[r, k] w[i, k] + x[r, k + 1] w[i, k
 * + 1]
 *
 * Sums are F32. One instruction adds a pair, and rounds as the processor does; numbers below the
 * smallest normal one are zero. An output has one order and one accumulator: a row's bits do not
 * depend on its batch. Private to core/dense. */
#ifndef CORE_BFLOATS_H
#define CORE_BFLOATS_H

#include <stdbool.h>

#include "core/dense/kernel.h"

/* `k` inputs with the one that makes them even. */
static inline size_t whole_pairs(size_t k)
{
    return k + k % 2;
}

struct bfloat_kernel {
    bool (*usable)(void); /* on this machine */
    size_t panel;
    /* y[rows, n] = x[rows, k] W^T + bias; bias may be NULL. Weights are panels of pairs: for every
     * two inputs in turn, both weights of one output beside those of the next, [panels, k / 2
     * rounded up, panel, 2]. Missing outputs and inputs are zeros. */
    void (*rows)(const struct packed *weights, const float *x, size_t rows, const float *bias,
                 float *y);
};

/* That of kernel_get()'s machine; NULL: it has none. */
const struct bfloat_kernel *bfloat_kernel_get(void);

#ifdef MOED_X86
extern const struct bfloat_kernel bfloats_avx512;
#endif

#endif

/* Dense algebra: the one interface between the layers and the matrix kernels.
 *
 * Weights are packed once at load into the layout the kernel walks (kernel.h), in their stored
 * dtype if the kernel can read it: F16 and BF16 weights stay half as large and are widened in
 * registers. Every output element is summed in one fixed order, so a row's bits do not depend on
 * how many rows are multiplied together. */
#ifndef CORE_GEMM_H
#define CORE_GEMM_H

#include <stddef.h>

#include "core/load/tensor.h"

struct kernel;
struct windows; /* kernel.h */

struct gemm {
    const struct kernel *kernel;
    size_t n, k;      /* outputs, inputs */
    enum dtype dtype; /* as packed */
    float *scales;    /* [n] each output's scale, which multiplies its weights; NULL: 1. Owned */
    void *panels;     /* owned */
    size_t bytes;     /* resident */
};

/* Packs `tensor`, whose elements are read as [n, k]. The tensor is not read again; call
 * tensor_drop_pages() on a mapped one. */
MUST_CHECK int gemm_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
                         struct error *err);

/* Like gemm_init(), in 8 bits: each output's weights become integers from -127 to 127 times a scale
 * of its own. Takes a quarter of F32's bytes; a weight is off by at most 1/254 of the output's
 * largest. Fails if one is not finite. */
MUST_CHECK int gemm_init_int8(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
                              struct error *err);
void gemm_close(struct gemm *gemm);

/* y[rows, n] = x[rows, k] W^T + bias[n]; `bias` may be NULL. */
void gemm_rows(const struct gemm *gemm, const float *x, size_t rows, const float *bias, float *y);

/* Outputs [first, end) of a product, as gemm_columns() cuts them. */
struct columns_of {
    size_t first, end;
};

/* Part `part` of `parts` of nearly equal size; some are empty if there are few outputs. */
struct columns_of gemm_columns(const struct gemm *gemm, size_t part, size_t parts);

/* gemm_rows() of some outputs: writes those columns of y. The parts together give its bits. */
void gemm_part(const struct gemm *gemm, const struct columns_of *columns, const float *x,
               size_t rows, const float *bias, float *y);

/* Like gemm_rows() with windows for rows. F32 weights only, and only if kernel->windows is set. */
void gemm_windows(const struct gemm *gemm, const struct windows *windows, const float *bias,
                  float *y);

#endif

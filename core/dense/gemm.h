/* Dense algebra: the one interface between the layers and the matrix kernels.
 *
 * Weights are packed once at load into the layout the kernel walks (kernel.h), in their stored
 * dtype if the kernel can read it: F16, BF16 and FP8 weights stay as small as they are and are
 * widened in registers, or BF16 ones multiplied as such (bfloats.h); or rounded to integers, which
 * are multiplied as such (integers.h). Every output element is summed in one fixed order, so a
 * row's bits do not depend on how many rows are multiplied together. */
#ifndef CORE_GEMM_H
#define CORE_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/dense/rounded.h"
#include "core/moed.h"

struct bfloat_kernel;
struct kernel;
struct windows; /* kernel.h */

/* How weights are kept: as they are stored, or as integers with a scale for every 32 inputs of an
 * output; and what they are multiplied with. */
struct precision {
    unsigned bits; /* 0: as stored; 8, 6 or 4 */
    enum moed_activations inputs;
    struct panels_store *store; /* whose they are; NULL: each matrix has its own memory */
    bool sizes_only; /* nothing is read or packed: the gemm has its sizes, and is not multiplied */
};

/* For matrices whose errors cost most. */
static inline void precision_refine(struct precision *precision)
{
    if (precision->bits == 4)
        precision->bits = 6;
}

struct gemm {
    const struct kernel *kernel;
    size_t n, k;                         /* outputs, inputs */
    size_t panel;                        /* outputs are packed together by this many */
    struct rounded rounded;              /* or, without its kernel: */
    const struct bfloat_kernel *bfloats; /* NULL: inputs are F32 */
    enum dtype dtype;                    /* as packed */
    float *scales; /* [panels, k / 32 rounded up, panel] of I8 and FP8, behind the panels */
    void *panels;  /* the store's; without one, owned */
    bool stored;
    size_t bytes; /* resident */
};

/* Packs `tensor`, whose elements are read as [n, k]. The tensor is not read again; call
 * tensor_drop_pages() on a mapped one. */
MUST_CHECK int gemm_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
                         struct error *err);

/* Like gemm_init(), as `precision` says. Fails if integers are wanted and a weight is not finite.
 * With f32 inputs weights of fewer bits take the memory of 8. */
MUST_CHECK int gemm_init_rounded(struct gemm *gemm, const struct precision *precision,
                                 const struct tensor *tensor, size_t n, size_t k,
                                 struct error *err);
void gemm_close(struct gemm *gemm);

/* y[rows, n] = x[rows, k] W^T + bias[n]; `bias` may be NULL. */
void gemm_rows(const struct gemm *gemm, const float *x, size_t rows, const float *bias, float *y);

/* Part `part` of `parts` of nearly equal size; some are empty if there are few outputs. */
struct columns_of gemm_columns(const struct gemm *gemm, size_t part, size_t parts);

/* gemm_rows() of some outputs: writes those columns of y. The parts together give its bits. */
void gemm_part(const struct gemm *gemm, const struct columns_of *columns, const float *x,
               size_t rows, const float *bias, float *y);

/* What a matrix makes of inputs. */
struct gemm_product {
    const struct gemm *gemm;
    const float *bias; /* [n] may be NULL */
    float *y;          /* [rows, n] */
};

/* gemm_part() of two matrices with the same inputs, as many outputs and the same precision: inputs
 * are rounded once for both. */
void gemm_part_of_both(const struct gemm_product products[2], const struct columns_of *columns,
                       const float *x, size_t rows);

/* Like gemm_rows() with windows for rows. F32 weights only, and only if kernel->windows is set. */
void gemm_windows(const struct gemm *gemm, const struct windows *windows, const float *bias,
                  float *y);

#endif

/* Dense algebra: the one interface between the layers and a matrix library.
 *
 * Weights are prepared once at load and used for the life of the model. The backend is OpenBLAS, one
 * thread per call: at serving sizes several BLAS threads are slower than one (an expert gets a
 * handful of rows), and parallelism over rows and experts is ours.
 *
 * OpenBLAS sums a one-row product in another order than a many-row one, so a row's last bits may
 * depend on the size of its batch; see moed_forward. */
#ifndef CORE_GEMM_H
#define CORE_GEMM_H

#include <stddef.h>

#include "safetensors.h"

struct gemm {
    size_t n, k;          /* outputs, inputs */
    const float *weights; /* [n, k] */
    float *owned;         /* when converted or realigned */
    size_t bytes;         /* resident */
};

/* Prepares `tensor`, whose elements are read as [n, k]. */
int gemm_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
              struct error *err);
void gemm_close(struct gemm *gemm);

/* y[rows, n] = x[rows, k] W^T + bias[n]; bias may be NULL. */
void gemm_rows(const struct gemm *gemm, const float *x, size_t rows, const float *bias, float *y);

/* y[count, columns] = W[first : first + count] x[k, columns] + bias[count] per row: the form a
 * convolution has once its patches are the columns. `bias` starts at row `first`; may be NULL. */
void gemm_columns(const struct gemm *gemm, size_t first, size_t count, const float *x,
                  size_t columns, const float *bias, float *y);

#endif

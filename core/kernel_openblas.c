/* OpenBLAS as a kernel: the baseline that ours are measured against, chosen by
 * MOED_KERNEL=openblas.
 *
 * One BLAS thread per call: parallelism over rows and experts is ours. OpenBLAS sums a one-row
 * product in another order than a many-row one, so with this kernel a row's last bits depend on its
 * batch. */
#include <pthread.h>
#include <string.h>

#include <cblas.h>

#include "kernel.h"

static void use_one_thread(void)
{
    openblas_set_num_threads(1);
}

static bool usable(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, use_one_thread);
    return true;
}

/* Panels of one output are plain row-major weights. */
static void multiply_rows(const struct packed *weights, const float *x, size_t rows,
                          const float *bias, float *y)
{
    const int n = (int)weights->n, k = (int)weights->k;
    for (size_t row = 0; bias && row < rows; row++)
        memcpy(y + row * weights->n, bias, weights->n * sizeof *y);
    const float keep = bias ? 1.0f : 0.0f;
    if (rows == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0f, weights->panels, k, x, 1, keep, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, n, k, 1.0f, x, k,
                    weights->panels, k, keep, y, n);
}

/* Windows that overlap are no matrix that BLAS could read. */
static void multiply_columns(const float *weights, size_t count, size_t k, const float *x,
                             const size_t *offsets, size_t columns, const float *bias, float *y,
                             size_t y_pitch)
{
    kernel_generic.columns(weights, count, k, x, offsets, columns, bias, y, y_pitch);
}

const struct kernel kernel_openblas = {.name = "openblas",
                                       .usable = usable,
                                       .panel = 1,
                                       .rows = multiply_rows,
                                       .columns = multiply_columns};

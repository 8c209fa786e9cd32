/* gemm.h on OpenBLAS. */
#include "gemm.h"

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

static void use_one_blas_thread(void)
{
    openblas_set_num_threads(1);
}

int gemm_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
              struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, use_one_blas_thread);
    *gemm = (struct gemm){.n = n, .k = k, .bytes = n * k * sizeof(float)};
    if (n > INT_MAX || k > INT_MAX)
        return error_set(err, ERROR_INVALID, "tensor '%s': an axis exceeds %d", tensor->name,
                         INT_MAX);
    if (tensor->dtype == DTYPE_F32 && (uintptr_t)tensor->data % sizeof(float) == 0) {
        gemm->weights = tensor->data;
        return 0;
    }
    gemm->owned = malloc(gemm->bytes);
    if (!gemm->owned)
        return error_set(err, ERROR_INTERNAL, "tensor '%s': no memory for %zu bytes", tensor->name,
                         gemm->bytes);
    tensor_to_f32(tensor, gemm->owned);
    gemm->weights = gemm->owned;
    return 0;
}

void gemm_close(struct gemm *gemm)
{
    free(gemm->owned);
    *gemm = (struct gemm){0};
}

void gemm_rows(const struct gemm *gemm, const float *x, size_t rows, const float *bias, float *y)
{
    const int n = (int)gemm->n, k = (int)gemm->k;
    if (bias)
        for (size_t row = 0; row < rows; row++)
            memcpy(y + row * gemm->n, bias, gemm->n * sizeof *y);
    const float keep = bias ? 1.0f : 0.0f;
    if (rows == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0f, gemm->weights, k, x, 1, keep, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, n, k, 1.0f, x, k,
                    gemm->weights, k, keep, y, n);
}

void gemm_columns(const struct gemm *gemm, size_t first, size_t count, const float *x,
                  size_t columns, const float *bias, float *y)
{
    if (bias)
        for (size_t row = 0; row < count; row++)
            for (size_t column = 0; column < columns; column++)
                y[row * columns + column] = bias[row];
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)count, (int)columns, (int)gemm->k,
                1.0f, gemm->weights + first * gemm->k, (int)gemm->k, x, (int)columns,
                bias ? 1.0f : 0.0f, y, (int)columns);
}

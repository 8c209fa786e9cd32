/* See xsmm_product.h. LIBXSMM's matrices have their columns one after the other, which makes our rows
 * its columns: Y[n, rows] = W[n, k] X[k, rows], a panel of W's rows at a time. */
#include "xsmm_product.h"

#include <stdlib.h>

#include <libxsmm.h>

#include "bench.h"

struct xsmm_product {
    size_t n, k, panel;
    float *weights; /* [n / panel, k, panel] */
    libxsmm_smmfunction multiply;
};

/* Rows of W. The fastest on a Xeon with AVX-512 of panels of 16, 32, 64, 128 and 256, all of k at once
 * or 64, 128, 256 or 512 of it, all rows at once or 32 or 64 of them; where another was faster at one
 * shape, by a few per cent, it was slower at the next. */
static size_t panel_for(size_t rows)
{
    if (rows <= 4 || rows > 64)
        return 64;
    return rows == 16 ? 16 : 32;
}

static libxsmm_smmfunction compile(size_t panel, size_t n, size_t k, size_t rows)
{
    const libxsmm_blasint w_stride = (libxsmm_blasint)panel, x_stride = (libxsmm_blasint)k,
                          y_stride = (libxsmm_blasint)n;
    const float alpha = 1, beta = 0;
    const int flags = LIBXSMM_GEMM_FLAG_NONE, prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
    return libxsmm_smmdispatch((libxsmm_blasint)panel, (libxsmm_blasint)rows, (libxsmm_blasint)k,
                               &w_stride, &x_stride, &y_stride, &alpha, &beta, &flags, &prefetch);
}

static float *pack(const float *weights, size_t panel, size_t n, size_t k)
{
    float *packed = bench_memory(n * k * sizeof *packed);
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < k; i++)
            packed[(row / panel * k + i) * panel + row % panel] = weights[row * k + i];
    return packed;
}

struct xsmm_product *xsmm_product_new(size_t n, size_t k, size_t rows, const float *weights)
{
    const size_t panel = panel_for(rows);
    const libxsmm_smmfunction multiply = compile(panel, n, k, rows);
    if (n % panel != 0 || !multiply)
        return NULL;
    struct xsmm_product *product = bench_memory(sizeof *product);
    *product = (struct xsmm_product){n, k, panel, pack(weights, panel, n, k), multiply};
    return product;
}

void xsmm_product_free(struct xsmm_product *product)
{
    free(product->weights);
    free(product);
}

void xsmm_product_run(const struct xsmm_product *product, const float *x, float *y)
{
    for (size_t row = 0; row < product->n; row += product->panel)
        product->multiply(product->weights + row * product->k, x, y + row);
}

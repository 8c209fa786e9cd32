/* LIBXSMM's matrices are column-major, so our rows are its columns: Y[n, rows] = W[n, k] X[k,
 * rows], a panel of W's rows at a time. Its batch-reduce kernel sums the products of a panel's
 * blocks of k.
 *
 * The sizes below are the fastest on a Xeon with AVX-512 of: panels of 16, 32, 64 and 128; all of k
 * in a plain product, or blocks of 64 to 1024, by batch-reduce and by plain products that add up;
 * all rows at once or 32. All of k at once is up to 4 % faster at 256 x 784 and 1 row, and takes up
 * to 2.6 times as long at 4096 x 4096. */
#include "xsmm_product.h"

#include <libxsmm.h>
#include <stdlib.h>

#include "bench.h"

enum { MAX_BLOCK = 400, SMALL_WEIGHTS = 1 << 20 };

struct xsmm_product {
    size_t n, k, panel;
    unsigned long long blocks; /* of k */
    float *weights;            /* [n / panel, k, panel] */
    libxsmm_smmfunction_reducebatch_strd multiply;
};

/* Rows of W in a panel. 16 would be 10 % faster at 512 x 1352 and take twice as long at 4096 x
 * 4096. */
static size_t panel_for(size_t n, size_t k, size_t rows)
{
    if (rows <= 4 || rows > 64)
        return 64;
    return rows == 16 && n * k <= SMALL_WEIGHTS ? 16 : 32;
}

/* The size of equal blocks of k. */
static size_t block_for(size_t k)
{
    size_t block = k;
    while (block > MAX_BLOCK && block % 2 == 0)
        block /= 2;
    return block;
}

static libxsmm_smmfunction_reducebatch_strd compile(size_t panel, size_t block, size_t n, size_t k,
                                                    size_t rows)
{
    const libxsmm_blasint w_stride = (libxsmm_blasint)panel, x_stride = (libxsmm_blasint)k,
                          y_stride = (libxsmm_blasint)n;
    const float alpha = 1, beta = 0;
    const int flags = LIBXSMM_GEMM_FLAG_NONE, prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
    const size_t w_block = panel * block * sizeof(float), x_block = block * sizeof(float);
    return libxsmm_smmdispatch_reducebatch_strd((libxsmm_blasint)panel, (libxsmm_blasint)rows,
                                                (libxsmm_blasint)block, (libxsmm_blasint)w_block,
                                                (libxsmm_blasint)x_block, &w_stride, &x_stride,
                                                &y_stride, &alpha, &beta, &flags, &prefetch);
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
    const size_t panel = panel_for(n, k, rows), block = block_for(k);
    const libxsmm_smmfunction_reducebatch_strd multiply = compile(panel, block, n, k, rows);
    if (n % panel != 0 || !multiply)
        return NULL;
    struct xsmm_product *product = bench_memory(sizeof *product);
    *product = (struct xsmm_product){n, k, panel, k / block, pack(weights, panel, n, k), multiply};
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
        product->multiply(product->weights + row * product->k, x, y + row, &product->blocks);
}

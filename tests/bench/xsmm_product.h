/* y[rows, n] = x[rows, k] W[n, k]^T by LIBXSMM, whose kernels are compiled for one shape each:
 * another of the best alternatives. */
#ifndef BENCH_XSMM_PRODUCT_H
#define BENCH_XSMM_PRODUCT_H

#include <stddef.h>

struct xsmm_product;

/* Packs the weights and compiles the kernel for `rows` rows. Returns NULL if LIBXSMM has no kernel
 * for this processor, or if n is not a multiple of its panels. */
struct xsmm_product *xsmm_product_new(size_t n, size_t k, size_t rows, const float *weights);

void xsmm_product_free(struct xsmm_product *product);

void xsmm_product_run(const struct xsmm_product *product, const float *x, float *y);

#endif

/* y[rows, n] = x[rows, k] W[n, k]^T by oneDNN's inner product, its weights packed once: the best that
 * is to be had elsewhere, and what the kernels are held against. */
#ifndef BENCH_DNNL_LINEAR_H
#define BENCH_DNNL_LINEAR_H

#include <stdbool.h>
#include <stddef.h>

struct dnnl_linear;

/* Copies and packs the weights. bf16: inputs and weights are BF16, sums and outputs F32. Returns NULL
 * where oneDNN has no such product for this processor. */
struct dnnl_linear *dnnl_linear_new(size_t n, size_t k, size_t rows, bool bf16,
                                    const float *weights);
void dnnl_linear_free(struct dnnl_linear *linear);

/* The x of all runs to come; copied, and converted to BF16 if need be. */
void dnnl_linear_input(struct dnnl_linear *linear, const float *x);
void dnnl_linear_run(struct dnnl_linear *linear, float *y);

#endif

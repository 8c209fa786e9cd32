/* y[rows, n] = x[rows, k] W[n, k]^T by oneDNN's inner product, its weights packed once: the best
 * that is to be had elsewhere, and what the kernels are held against. */
#ifndef BENCH_ONEDNN_PRODUCT_H
#define BENCH_ONEDNN_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

/* Weights as a product packed them; several may be multiplied by one product. */
struct dnnl_memory;

struct onednn_product;

/* For up to max_rows rows, with weights in the format that oneDNN prefers for `rows` rows, as its
 * documentation advises for weights that stay. bf16: x and W are BF16, sums and y F32. relu: of the
 * results, in the same pass. Returns NULL where oneDNN has no such product for this processor. */
struct onednn_product *onednn_product_new(size_t n, size_t k, size_t rows, size_t max_rows,
                                          bool bf16, bool relu);

/* A packed copy of weights [n, k]. */
struct dnnl_memory *onednn_product_pack(const struct onednn_product *product, const float *weights);

/* With the weights it packed, if any. */
void onednn_product_free(struct onednn_product *product, struct dnnl_memory *weights);

/* The first run of so many rows builds their primitive: it is not one to time. */
void onednn_product_run(struct onednn_product *product, struct dnnl_memory *weights, size_t rows,
                        const void *x, float *y);

#endif

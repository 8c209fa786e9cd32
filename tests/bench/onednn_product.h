/* y[rows, n] = x[rows, k] W[n, k]^T by oneDNN's inner product, with weights packed once: the best
 * alternative, with which our kernels are compared. */
#ifndef BENCH_ONEDNN_PRODUCT_H
#define BENCH_ONEDNN_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

/* Weights packed by a product; one product may multiply several. */
struct dnnl_memory;

struct onednn_product;

/* For up to max_rows rows, with weights in the format that oneDNN prefers for `rows` rows, as its
 * documentation advises for constant weights. bf16: x and W are BF16, sums and y are F32. relu:
 * applied to the results in the same pass. Returns NULL if oneDNN has no such product for this
 * processor. */
struct onednn_product *onednn_product_new(size_t n, size_t k, size_t rows, size_t max_rows,
                                          bool bf16, bool relu);

/* A packed copy of weights [n, k]. */
struct dnnl_memory *onednn_product_pack(const struct onednn_product *product, const float *weights);

/* Also frees the weights that it packed, if given. */
void onednn_product_free(struct onednn_product *product, struct dnnl_memory *weights);

/* The first run of a number of rows builds its primitive: do not time it. */
void onednn_product_run(struct onednn_product *product, struct dnnl_memory *weights, size_t rows,
                        const void *x, float *y);

#endif

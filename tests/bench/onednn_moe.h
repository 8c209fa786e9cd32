/* A MoE layer as one would write it with oneDNN: a product for the gate, then a loop over the
 * experts, each with the gathered rows that chose it. */
#ifndef BENCH_ONEDNN_MOE_H
#define BENCH_ONEDNN_MOE_H

#include <stddef.h>

#include "core/load/safetensors.h"
#include "core/moed.h"

struct onednn_moe;

/* For a model of one layer "moe", with experts fc1-relu-fc2, a linear gate "out" and a softmax over
 * the top_k logits. Copies the weights. Returns NULL for other models. */
struct onednn_moe *onednn_moe_new(const struct moed_model_info *info,
                                  const struct safetensors *weights, size_t max_rows);

/* x: [rows, in], y: [rows, in]. As with products, do not time the first run of a number of rows,
 * nor the first that gives an expert that many. */
void onednn_moe_forward(struct onednn_moe *moe, size_t rows, const float *x, float *y);

#endif

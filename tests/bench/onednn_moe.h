/* A MoE layer as one writes it with oneDNN: its product for the gate, then a loop over the experts,
 * each over the gathered rows that chose it. */
#ifndef BENCH_ONEDNN_MOE_H
#define BENCH_ONEDNN_MOE_H

#include <stddef.h>

#include "core/load/safetensors.h"
#include "core/moed.h"

struct onednn_moe;

/* Of a model that is one layer "moe" of experts fc1-relu-fc2 behind a linear gate "out", softmax
 * over the top_k logits; weights are copied. Returns NULL for others. */
struct onednn_moe *onednn_moe_new(const struct moed_model_info *info,
                                  const struct safetensors *weights, size_t max_rows);

/* x: [rows, in], y: [rows, in]. As with products, the first run of so many rows is not one to time;
 * neither is the first that gives an expert so many. */
void onednn_moe_forward(struct onednn_moe *moe, size_t rows, const float *x, float *y);

#endif

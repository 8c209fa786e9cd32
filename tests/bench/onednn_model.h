/* The benchmark's models by oneDNN: one MoE layer (onednn_moe.h) or one convolution. */
#ifndef BENCH_ONEDNN_MODEL_H
#define BENCH_ONEDNN_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/moed.h"

struct onednn_model;

/* Reads the checkpoint, for calls of up to max_rows rows. NULL if it is neither of the two. Lives
 * as long as the program. */
struct onednn_model *onednn_model_open(const char *directory, const struct moed_model_info *info,
                                       size_t max_rows);

/* Prepares for calls of `rows` rows. Returns whether anything they need is not built yet. */
bool onednn_model_size(struct onednn_model *model, size_t rows);

/* x: [rows, in], y: [rows, out]. The first call builds what oneDNN builds for each number of rows,
 * also of each expert: run every x once before timing it. */
void onednn_model_forward(struct onednn_model *model, size_t rows, const float *x, float *y);

/* The part to time. It converts nothing: a convolution reads and writes oneDNN's own format, as it
 * would between other layers, and uses the numbers of the last onednn_model_forward(). */
void onednn_model_run(struct onednn_model *model, size_t rows, const float *x, float *y);

#endif

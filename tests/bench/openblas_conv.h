/* A convolution with a BLAS: writes out the windows of a row, then does one product. */
#ifndef BENCH_OPENBLAS_CONV_H
#define BENCH_OPENBLAS_CONV_H

#include <stdbool.h>
#include <stddef.h>

#include "core/load/safetensors.h"
#include "core/moed.h"

struct openblas_conv;

/* For a model of one layer, a conv1d or conv2d "conv" with bias, whose stride and padding cannot be
 * derived from its shapes; `weights` must outlive it. */
struct openblas_conv *openblas_conv_new(const struct moed_model_info *info,
                                        const struct safetensors *weights, size_t stride,
                                        size_t padding);

void openblas_conv_forward(const struct openblas_conv *conv, size_t rows, const float *x, float *y);

/* Reads stride and padding from the model's config. Returns false for other models. */
bool conv_read_steps(const char *directory, const struct safetensors *weights, size_t *stride,
                     size_t *padding);

#endif

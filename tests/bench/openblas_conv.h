/* A convolution with a BLAS: writes out the windows of a row, then does one product. */
#ifndef BENCH_OPENBLAS_CONV_H
#define BENCH_OPENBLAS_CONV_H

#include <stdbool.h>
#include <stddef.h>

#include "core/load/safetensors.h"
#include "core/moed.h"

struct openblas_conv;

/* What cannot be derived from the shapes of a convolution. */
struct conv_steps {
    size_t stride, padding, groups;
};

/* For a model of one layer, a conv1d or conv2d "conv" with bias; `weights` must outlive it. NULL if
 * it has groups: each would be a product of its own. */
struct openblas_conv *openblas_conv_new(const struct moed_model_info *info,
                                        const struct safetensors *weights,
                                        const struct conv_steps *steps);

void openblas_conv_forward(const struct openblas_conv *conv, size_t rows, const float *x, float *y);

/* Reads them from the model's config. Returns false for other models. */
bool conv_read_steps(const char *directory, const struct safetensors *weights,
                     struct conv_steps *steps);

#endif

/* A convolution as one does it with a BLAS: the windows of a row written out, then one product. */
#ifndef BENCH_OPENBLAS_CONV_H
#define BENCH_OPENBLAS_CONV_H

#include <stdbool.h>
#include <stddef.h>

#include "core/load/safetensors.h"
#include "core/moed.h"

struct openblas_conv;

/* Of a model that is one layer conv1d or conv2d "conv" with bias, whose stride and padding its
 * shapes do not tell; `weights` must outlive it. */
struct openblas_conv *openblas_conv_new(const struct moed_model_info *info,
                                        const struct safetensors *weights, size_t stride,
                                        size_t padding);

void openblas_conv_forward(const struct openblas_conv *conv, size_t rows, const float *x, float *y);

/* What the shapes of that model do not tell, from its config. Returns false for other models. */
bool conv_read_steps(const char *directory, const struct safetensors *weights, size_t *stride,
                     size_t *padding);

#endif

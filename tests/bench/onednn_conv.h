/* A convolution by oneDNN, with weights, inputs and outputs in its preferred formats: a network of
 * convolutions would not convert them either. */
#ifndef BENCH_ONEDNN_CONV_H
#define BENCH_ONEDNN_CONV_H

#include <stddef.h>

#include "core/load/safetensors.h"
#include "core/moed.h"
#include "openblas_conv.h"

struct onednn_conv;

/* Makes a convolution for calls of `rows` rows. The model has one layer, a conv1d or conv2d "conv"
 * with bias. */
struct onednn_conv *onednn_conv_new(const struct moed_model_info *info,
                                    const struct safetensors *weights,
                                    const struct conv_steps *steps, size_t rows);
void onednn_conv_free(struct onednn_conv *conv); /* or NULL */

/* Puts x into oneDNN's format, computes, and takes y out of it. */
void onednn_conv_input(const struct onednn_conv *conv, const float *x);
void onednn_conv_run(const struct onednn_conv *conv);
void onednn_conv_output(const struct onednn_conv *conv, float *y);

#endif

/* Windows are written out line by line for each kernel tap. */
#include "openblas_conv.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "core/load/config.h"

/* A conv1d is a conv2d of height 1. */
struct openblas_conv {
    const float *weights, *bias; /* [filters, k], [filters] */
    size_t channels, in_h, in_w, filters, out_h, out_w, kernel_h, kernel_w;
    size_t stride, padding_h, padding_w;
    float *windows; /* [k, out_h * out_w] */
};

bool conv_read_steps(const char *directory, const struct safetensors *weights,
                     struct conv_steps *steps)
{
    char path[4096];
    struct config_node root, layer;
    struct error err = ERROR_INIT;
    int64_t stride, padding, groups;
    if (!safetensors_find(weights, "conv.weight"))
        return false;
    snprintf(path, sizeof path, "%s/config.json", directory);
    if (config_open(&root, path, &err) != 0 || config_item(&root, "layers", 0, &layer, &err) != 0 ||
        config_integer(&layer, "stride", 1, within(1, 4096), &stride, &err) != 0 ||
        config_integer(&layer, "padding", 0, within(0, 4096), &padding, &err) != 0 ||
        config_integer(&layer, "groups", 1, within(1, 65536), &groups, &err) != 0) {
        fprintf(stderr, "bench: %s\n", err.text);
        exit(EXIT_FAILURE);
    }
    config_close(&root);
    *steps = (struct conv_steps){(size_t)stride, (size_t)padding, (size_t)groups};
    return true;
}

struct openblas_conv *openblas_conv_new(const struct moed_model_info *info,
                                        const struct safetensors *weights,
                                        const struct conv_steps *steps)
{
    if (steps->groups > 1)
        return NULL;
    const struct tensor *weight = safetensors_find(weights, "conv.weight");
    const struct moed_shape *in = &info->inputs->shape, *out = &info->outputs->shape;
    const bool flat = weight->rank == 3;
    struct openblas_conv *conv = bench_memory(sizeof *conv);
    *conv = (struct openblas_conv){.weights = weight->data,
                                   .bias = safetensors_find(weights, "conv.bias")->data,
                                   .channels = in->dims[0],
                                   .in_h = flat ? 1 : in->dims[1],
                                   .in_w = in->dims[in->rank - 1],
                                   .filters = out->dims[0],
                                   .out_h = flat ? 1 : out->dims[1],
                                   .out_w = out->dims[out->rank - 1],
                                   .kernel_h = flat ? 1 : weight->dims[2],
                                   .kernel_w = weight->dims[weight->rank - 1],
                                   .stride = steps->stride,
                                   .padding_h = flat ? 0 : steps->padding,
                                   .padding_w = steps->padding};
    conv->windows = bench_memory(conv->channels * conv->kernel_h * conv->kernel_w * conv->out_h *
                                 conv->out_w * sizeof *conv->windows);
    openblas_set_num_threads(1);
    return conv;
}

/* Writes one kernel tap's number for every window of a line; zeros outside the image. */
static float *write_line(const struct openblas_conv *conv, const float *plane, size_t y, size_t kw,
                         float *to)
{
    const bool inside = y >= conv->padding_h && y - conv->padding_h < conv->in_h;
    const float *line = plane + (inside ? y - conv->padding_h : 0) * conv->in_w;
    for (size_t ow = 0; ow < conv->out_w; ow++) {
        const size_t x = ow * conv->stride + kw;
        const bool there = inside && x >= conv->padding_w && x - conv->padding_w < conv->in_w;
        *to++ = there ? line[x - conv->padding_w] : 0.0f;
    }
    return to;
}

static void write_windows(const struct openblas_conv *conv, const float *image)
{
    float *to = conv->windows;
    for (size_t channel = 0; channel < conv->channels; channel++, image += conv->in_h * conv->in_w)
        for (size_t kh = 0; kh < conv->kernel_h; kh++)
            for (size_t kw = 0; kw < conv->kernel_w; kw++)
                for (size_t oh = 0; oh < conv->out_h; oh++)
                    to = write_line(conv, image, oh * conv->stride + kh, kw, to);
}

void openblas_conv_forward(const struct openblas_conv *conv, size_t rows, const float *x, float *y)
{
    const size_t columns = conv->out_h * conv->out_w;
    const int m = (int)conv->filters, n = (int)columns;
    const int k = (int)(conv->channels * conv->kernel_h * conv->kernel_w);
    for (size_t row = 0; row < rows; row++, x += conv->channels * conv->in_h * conv->in_w) {
        write_windows(conv, x);
        for (size_t filter = 0; filter < conv->filters; filter++)
            for (size_t i = 0; i < columns; i++)
                y[filter * columns + i] = conv->bias[filter];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, 1, conv->weights, k,
                    conv->windows, n, 1, y, n);
        y += conv->filters * columns;
    }
}

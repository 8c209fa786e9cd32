/* conv1d, conv2d: cross-correlation with zero padding, as PyTorch's. weight [out, in/groups, kernel
 * axes], bias [out] if the tensor is there. A conv1d is a conv2d of height 1.
 *
 * Every row is lowered by itself (im2col into the worker's workspace, then one product), so a row's
 * result cannot depend on its batch. */
#include "layer.h"

#include <string.h>

/* Strides and paddings beyond any image; keeps the arithmetic below far from overflow. */
enum { MAX_CONV_STEP = 4096 };

struct conv {
    struct gemm gemm; /* [out, in/groups * kernel_h * kernel_w] */
    struct array bias;
    size_t groups, stride, padding_h, padding_w;
    size_t in_channels, in_h, in_w;
    size_t out_channels, out_h, out_w;
    size_t kernel_h, kernel_w;
};

static size_t output_size(size_t in, size_t padding, size_t kernel, size_t stride)
{
    return in + 2 * padding < kernel ? 0 : (in + 2 * padding - kernel) / stride + 1;
}

static int read_options(struct conv *conv, struct config_node *node, struct error *err)
{
    int64_t stride, padding, groups;
    if (config_integer(node, "stride", 1, 1, MAX_CONV_STEP, &stride, err) != 0 ||
        config_integer(node, "padding", 0, 0, MAX_CONV_STEP, &padding, err) != 0 ||
        config_integer(node, "groups", 1, 1, MAX_ROW_ELEMENTS, &groups, err) != 0)
        return -1;
    conv->stride = (size_t)stride;
    conv->padding_h = conv->padding_w = (size_t)padding;
    conv->groups = (size_t)groups;
    return 0;
}

static int claim_weight(struct layer *layer, const struct build *build, size_t axes,
                        struct error *err)
{
    struct conv *conv = layer->state;
    struct tensor *weight = tensor_claim(layer, build, "weight", err);
    if (!weight)
        return -1;
    if (weight->rank != axes + 2)
        return error_set(err, ERROR_INVALID, "tensor '%s' has %zu axes, expected %zu", weight->name,
                         weight->rank, axes + 2);
    conv->out_channels = weight->dims[0];
    conv->kernel_h = axes == 2 ? weight->dims[2] : 1;
    conv->kernel_w = weight->dims[axes + 1];
    if (conv->in_channels % conv->groups || conv->out_channels % conv->groups ||
        weight->dims[1] != conv->in_channels / conv->groups)
        return error_set(err, ERROR_INVALID,
                         "tensor '%s': %zu x %zu channels do not fit %zu input channels in %zu groups",
                         weight->name, conv->out_channels, weight->dims[1], conv->in_channels,
                         conv->groups);
    layer->parameters = layer->active_parameters = weight->elements;
    size_t k = weight->elements / conv->out_channels;
    if (gemm_init(&conv->gemm, weight, conv->out_channels, k, err) != 0)
        return -1;
    layer->weight_bytes = conv->gemm.bytes;
    return array_build(&conv->bias, layer, build, "bias", &conv->out_channels, 1, false, err);
}

static int conv_build(struct layer *layer, struct build *build, struct config_node *node,
                      size_t axes, struct error *err)
{
    struct conv *conv = layer->state = xcalloc(1, sizeof *conv);
    const struct moed_shape *in = &layer->in;
    char text[SHAPE_TEXT_BYTES];
    if (in->rank != axes + 1)
        return config_error(node, NULL, err, "%s needs rows of %zu axes, got shape %s",
                            layer->op->name, axes + 1, shape_text(in, text));
    if (read_options(conv, node, err) != 0)
        return -1;
    conv->in_channels = in->dims[0];
    conv->in_h = axes == 2 ? in->dims[1] : 1;
    conv->in_w = in->dims[axes];
    if (axes == 1)
        conv->padding_h = 0;
    if (claim_weight(layer, build, axes, err) != 0)
        return -1;
    conv->out_h = output_size(conv->in_h, conv->padding_h, conv->kernel_h, conv->stride);
    conv->out_w = output_size(conv->in_w, conv->padding_w, conv->kernel_w, conv->stride);
    if (conv->out_h == 0 || conv->out_w == 0)
        return config_error(node, NULL, err, "kernel is larger than the padded input %s",
                            shape_text(in, text));
    struct moed_shape out = {.rank = axes + 1, .dims = {conv->out_channels, conv->out_h, conv->out_w}};
    if (axes == 1)
        out.dims[1] = conv->out_w;
    size_t positions = conv->out_h * conv->out_w;
    if (layer_set_out(layer, node, &out, err) != 0)
        return -1;
    if (__builtin_mul_overflow(conv->gemm.k, positions, &layer->workspace) ||
        layer->workspace > MAX_ROW_ELEMENTS)
        return config_error(node, NULL, err, "the patches of one row exceed %d numbers",
                            MAX_ROW_ELEMENTS);
    layer->macs = (uint64_t)layer->out_elements * conv->gemm.k;
    return 0;
}

static int conv1d_build(struct layer *layer, struct build *build, struct config_node *node,
                        struct error *err)
{
    return conv_build(layer, build, node, 1, err);
}

static int conv2d_build(struct layer *layer, struct build *build, struct config_node *node,
                        struct error *err)
{
    return conv_build(layer, build, node, 2, err);
}

/* One line of patches: column[ow] = line[ow * stride + offset - padding], zero outside the line. */
static void gather_line(const struct conv *conv, const float *line, size_t offset, float *column)
{
    for (size_t ow = 0; ow < conv->out_w; ow++) {
        size_t at = ow * conv->stride + offset;
        bool inside = at >= conv->padding_w && at - conv->padding_w < conv->in_w;
        column[ow] = inside ? line[at - conv->padding_w] : 0.0f;
    }
}

/* columns: [channels * kernel_h * kernel_w, out_h * out_w] of one channel group of one row. */
static void gather_patches(const struct conv *conv, const float *image, size_t channels,
                           float *columns)
{
    for (size_t channel = 0; channel < channels; channel++, image += conv->in_h * conv->in_w)
        for (size_t kh = 0; kh < conv->kernel_h; kh++)
            for (size_t kw = 0; kw < conv->kernel_w; kw++)
                for (size_t oh = 0; oh < conv->out_h; oh++, columns += conv->out_w) {
                    size_t at = oh * conv->stride + kh;
                    if (at >= conv->padding_h && at - conv->padding_h < conv->in_h)
                        gather_line(conv, image + (at - conv->padding_h) * conv->in_w, kw, columns);
                    else
                        memset(columns, 0, conv->out_w * sizeof *columns);
                }
}

static void conv_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    const struct conv *conv = layer->state;
    const size_t in_channels = conv->in_channels / conv->groups;
    const size_t out_channels = conv->out_channels / conv->groups;
    const size_t in_plane = conv->in_h * conv->in_w, out_plane = conv->out_h * conv->out_w;
    float *columns = run_workspace(run);
    for (size_t row = 0; row < rows; row++, x += layer->in_elements, y += layer->out_elements)
        for (size_t group = 0; group < conv->groups; group++) {
            size_t first = group * out_channels;
            const float *bias = conv->bias.values ? conv->bias.values + first : NULL;
            gather_patches(conv, x + group * in_channels * in_plane, in_channels, columns);
            gemm_columns(&conv->gemm, first, out_channels, columns, out_plane, bias,
                         y + first * out_plane);
        }
}

static void conv_free(struct layer *layer)
{
    struct conv *conv = layer->state;
    if (!conv)
        return;
    gemm_close(&conv->gemm);
    array_close(&conv->bias);
}

const struct layer_op op_conv1d = {
    .name = "conv1d", .build = conv1d_build, .forward = conv_forward, .free = conv_free};
const struct layer_op op_conv2d = {
    .name = "conv2d", .build = conv2d_build, .forward = conv_forward, .free = conv_free};

/* conv1d, conv2d: cross-correlation with zero padding, as PyTorch's. weight [out, in/groups, kernel
 * axes], bias [out] if the tensor is there. A conv1d is a conv2d of height 1.
 *
 * Every row is convolved by itself, so its result cannot depend on its batch. With stride 1 no
 * windows are written out: the windows of one kernel tap are the padded image shifted, so the
 * product reads the image itself at one offset per tap, over all lines at once, and the few results
 * whose windows wrapped around an edge are dropped. */
#include "layer.h"

#include <stdlib.h>
#include <string.h>

#include "kernel.h"
#include "vector.h"

/* Strides and paddings beyond any image; keeps the arithmetic below far from overflow. */
enum { MAX_CONV_STEP = 4096 };

struct conv {
    struct array weight; /* [out, k] */
    struct array bias;
    size_t k; /* in/groups * kernel_h * kernel_w */
    size_t groups, stride, padding_h, padding_w;
    size_t in_channels, in_h, in_w;
    size_t out_channels, out_h, out_w;
    size_t kernel_h, kernel_w;

    size_t padded_w, padded_elements; /* of one channel group, with what the kernel reads beyond */
    size_t columns;  /* windows of one channel group, those that wrap around an edge included */
    size_t line;     /* results per output line, the same */
    size_t *window;  /* [k] where each tap's first window begins in the padded image */
    size_t *offsets; /* [k] where each tap's columns begin in what the product reads */
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
    const struct tensor *weight = tensor_peek(layer, build, "weight");
    if (!weight)
        return tensor_claim(layer, build, "weight", err) ? 0 : -1; /* says what is missing */
    if (weight->rank != axes + 2)
        return error_set(err, ERROR_INVALID, "tensor '%s' has %zu axes, expected %zu", weight->name,
                         weight->rank, axes + 2);
    conv->out_channels = weight->dims[0];
    conv->kernel_h = axes == 2 ? weight->dims[2] : 1;
    conv->kernel_w = weight->dims[axes + 1];
    if (conv->in_channels % conv->groups || conv->out_channels % conv->groups ||
        weight->dims[1] != conv->in_channels / conv->groups)
        return error_set(
            err, ERROR_INVALID,
            "tensor '%s': %zu x %zu channels do not fit %zu input channels in %zu groups",
            weight->name, conv->out_channels, weight->dims[1], conv->in_channels, conv->groups);
    conv->k = weight->elements / conv->out_channels;
    if (array_build(&conv->weight, layer, build, "weight", weight->dims, weight->rank, true, err) !=
        0)
        return -1;
    return array_build(&conv->bias, layer, build, "bias", &conv->out_channels, 1, false, err);
}

/* Where taps find their windows, and how much a worker needs for one channel group. */
static int plan(struct conv *conv, size_t *workspace, const struct config_node *node,
                struct error *err)
{
    const size_t height = conv->in_h + 2 * conv->padding_h;
    const size_t channels = conv->in_channels / conv->groups;
    conv->padded_w = conv->in_w + 2 * conv->padding_w;
    conv->padded_elements = channels * height * conv->padded_w + COLUMN_SLACK;
    conv->line = conv->stride == 1 ? conv->padded_w : conv->out_w;
    conv->columns = (conv->out_h - 1) * conv->line + conv->out_w;
    const size_t gathered = conv->stride == 1 ? 0 : conv->k * conv->columns + COLUMN_SLACK;
    const size_t results = conv->out_channels / conv->groups * (conv->columns + COLUMN_SLACK);
    *workspace = conv->padded_elements + gathered + results;
    if (conv->k > MAX_ROW_ELEMENTS || *workspace > MAX_ROW_ELEMENTS)
        return config_error(node, NULL, err, "one row needs more than %d numbers of workspace",
                            MAX_ROW_ELEMENTS);
    if (!(conv->window = calloc_checked(conv->k, sizeof *conv->window, err)) ||
        !(conv->offsets = calloc_checked(conv->k, sizeof *conv->offsets, err)))
        return -1;
    for (size_t k = 0; k < conv->k; k++) {
        const size_t kw = k % conv->kernel_w, kh = k / conv->kernel_w % conv->kernel_h;
        const size_t channel = k / conv->kernel_w / conv->kernel_h;
        conv->window[k] = (channel * height + kh) * conv->padded_w + kw;
        conv->offsets[k] = conv->stride == 1 ? conv->window[k] : k * conv->columns;
    }
    return 0;
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
    struct moed_shape out = {.rank = axes + 1,
                             .dims = {conv->out_channels, conv->out_h, conv->out_w}};
    if (axes == 1)
        out.dims[1] = conv->out_w;
    if (layer_set_out(layer, node, &out, err) != 0)
        return -1;
    layer->macs = (uint64_t)layer->out_elements * conv->k;
    return plan(conv, &layer->workspace, node, err);
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

/* Lines are a few dozen numbers, for which a call of memcpy costs more than the copying. */
static inline void copy_line(float *to, const float *from, size_t count)
{
    enum { STEP = 8 };
    size_t i = 0;
    for (; i + STEP <= count; i += STEP)
        memcpy(to + i, from + i, STEP * sizeof *to);
    for (; i < count; i++)
        to[i] = from[i];
}

/* The image of one channel group with its padding around it, which makes every window whole. */
VECTORIZED static void pad(const struct conv *conv, const float *image, size_t channels, float *to)
{
    const size_t height = conv->in_h + 2 * conv->padding_h, width = conv->padded_w;
    if (height == conv->in_h && width == conv->in_w) {
        memcpy(to, image, channels * height * width * sizeof *to);
        return;
    }
    memset(to, 0, channels * height * width * sizeof *to);
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t h = 0; h < conv->in_h; h++, image += conv->in_w)
            copy_line(to + (channel * height + h + conv->padding_h) * width + conv->padding_w,
                      image, conv->in_w);
}

/* columns[k][position]: the windows written out, for strides that leave gaps between them. */
VECTORIZED static void gather_windows(const struct conv *conv, const float *padded, float *columns)
{
    for (size_t k = 0; k < conv->k; k++)
        for (size_t oh = 0; oh < conv->out_h; oh++) {
            const float *line = padded + conv->window[k] + oh * conv->stride * conv->padded_w;
            for (size_t ow = 0; ow < conv->out_w; ow++)
                *columns++ = line[ow * conv->stride];
        }
}

/* Result lines are as wide as the padded image; their tails, where windows wrapped around its edge,
 * are left behind. */
VECTORIZED static void keep_lines(const struct conv *conv, const float *wide, size_t channels,
                                  size_t pitch, float *y)
{
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t oh = 0; oh < conv->out_h; oh++, y += conv->out_w)
            copy_line(y, wide + channel * pitch + oh * conv->line, conv->out_w);
}

static void convolve(const struct conv *conv, size_t group, const float *image, float *workspace,
                     float *y)
{
    const size_t in_channels = conv->in_channels / conv->groups;
    const size_t out_channels = conv->out_channels / conv->groups;
    const float *weights = conv->weight.values + group * out_channels * conv->k;
    const float *bias = conv->bias.values ? conv->bias.values + group * out_channels : NULL;
    const float *source = workspace;
    float *free_space = workspace + conv->padded_elements;
    pad(conv, image, in_channels, workspace);
    if (conv->stride > 1) {
        gather_windows(conv, source, free_space);
        source = free_space;
        free_space += conv->k * conv->columns + COLUMN_SLACK;
    }
    const size_t pitch = conv->columns + COLUMN_SLACK;
    kernel_get()->columns(weights, out_channels, conv->k, source, conv->offsets, conv->columns,
                          bias, free_space, pitch);
    keep_lines(conv, free_space, out_channels, pitch, y);
}

static void conv_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    const struct conv *conv = layer->state;
    const size_t in_group = layer->in_elements / conv->groups;
    const size_t out_group = layer->out_elements / conv->groups;
    for (size_t i = 0; i < rows * conv->groups; i++)
        convolve(conv, i % conv->groups, x + i * in_group, run_workspace(run), y + i * out_group);
}

static void conv_free(struct layer *layer)
{
    struct conv *conv = layer->state;
    if (!conv)
        return;
    array_close(&conv->weight);
    array_close(&conv->bias);
    free(conv->window);
    free(conv->offsets);
}

const struct layer_op op_conv1d = {
    .name = "conv1d", .build = conv1d_build, .forward = conv_forward, .free = conv_free};
const struct layer_op op_conv2d = {
    .name = "conv2d", .build = conv2d_build, .forward = conv_forward, .free = conv_free};

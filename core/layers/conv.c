/* conv1d, conv2d: cross-correlation with zero padding, as PyTorch's. weight [out, in/groups, kernel
 * axes], bias [out] if the tensor is there. A conv1d is a conv2d of height 1.
 *
 * Every row is convolved by itself, so its result cannot depend on its batch. Its image is written
 * with its padding around it, which makes every window whole: the windows of one kernel tap are
 * then the padded image shifted, and products read it at one offset per tap. There are three
 * products. They sum in the same order and differ in what the lanes of a vector are:
 *
 * - by lines: windows along an output line, where lines are whole vectors; results need no copy
 * - by windows: output channels, where they fill vectors better; the results of a line are
 * transposed
 * - by columns: windows of all lines at once. The few results whose windows wrapped around an edge
 * are dropped. With strides, the windows are written out first. */
#include <stdlib.h>
#include <string.h>

#include "core/dense/gemm.h"
#include "core/dense/kernel.h"
#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/layers/weights.h"
#include "core/memory.h"

/* Bounds strides and paddings: no image needs more, and the arithmetic below then cannot
 * overflow. */
enum { MAX_CONV_STEP = 4096 };

struct conv {
    struct array weight; /* [out, k]; freed after packing: */
    float *packed; /* by lines, by columns: [groups, out/groups, k] as the kernel reads them */
    struct gemm *panels; /* by windows: [groups] */
    struct array bias;
    size_t k; /* in/groups * kernel_h * kernel_w */
    size_t groups, stride, padding_h, padding_w;
    size_t in_channels, in_h, in_w;
    size_t out_channels, out_h, out_w;
    size_t kernel_h, kernel_w;

    enum { BY_LINES, BY_WINDOWS, BY_COLUMNS } way;
    size_t padded_w, padded_elements; /* of one channel group; with what the kernel reads beyond */
    size_t *window;         /* [k] where each tap's first window begins in the padded image */
    struct columns columns; /* unused BY_WINDOWS; owns .offsets */
    size_t line; /* by columns: results per output line, with those that wrap around an edge */
};

static size_t output_size(size_t in, size_t padding, size_t kernel, size_t stride)
{
    return in + 2 * padding < kernel ? 0 : (in + 2 * padding - kernel) / stride + 1;
}

static int read_options(struct conv *conv, struct config_node *node, struct error *err)
{
    int64_t stride, padding, groups;
    if (config_integer(node, "stride", 1, within(1, MAX_CONV_STEP), &stride, err) != 0 ||
        config_integer(node, "padding", 0, within(0, MAX_CONV_STEP), &padding, err) != 0 ||
        config_integer(node, "groups", 1, within(1, MAX_ROW_ELEMENTS), &groups, err) != 0)
        return -1;
    conv->stride = (size_t)stride;
    conv->padding_h = conv->padding_w = (size_t)padding;
    conv->groups = (size_t)groups;
    return 0;
}

static int claim_weight(struct layer *layer, const struct scope *scope, size_t axes,
                        struct error *err)
{
    struct conv *conv = layer->state;
    const struct tensor *weight = tensor_peek(scope, "weight");
    if (!weight)
        return tensor_claim(scope, "weight", err) ? 0 : -1; /* says what is missing */
    if (weight->rank != axes + 2)
        return tensor_error(weight, err, ERROR_INVALID, " has %zu axes, expected %zu", weight->rank,
                            axes + 2);
    conv->out_channels = weight->dims[0];
    conv->kernel_h = axes == 2 ? weight->dims[2] : 1;
    conv->kernel_w = weight->dims[axes + 1];
    if (conv->in_channels % conv->groups || conv->out_channels % conv->groups ||
        weight->dims[1] != conv->in_channels / conv->groups)
        return tensor_error(weight, err, ERROR_INVALID,
                            ": %zu x %zu channels do not fit %zu input channels in %zu groups",
                            conv->out_channels, weight->dims[1], conv->in_channels, conv->groups);
    conv->k = weight->elements / conv->out_channels;
    struct moed_shape shape = {.rank = weight->rank}, outputs = {1, {conv->out_channels}};
    memcpy(shape.dims, weight->dims, weight->rank * sizeof *shape.dims);
    if (array_build(&conv->weight, scope, "weight", &shape, err) != 0)
        return -1;
    return array_build_optional(&conv->bias, scope, "bias", &outputs, err);
}

static size_t round_up(size_t count, size_t unit)
{
    return (count + unit - 1) / unit * unit;
}

/* Chooses the product that computes the fewest numbers, counted in whole vectors. */
static void choose_way(struct conv *conv)
{
    const struct kernel *kernel = kernel_get();
    size_t channels = conv->out_channels / conv->groups, panel = kernel->panel;
    size_t windows = conv->out_h * conv->out_w;
    conv->line = conv->stride == 1 ? conv->padded_w : conv->out_w;
    conv->columns.count = (conv->out_h - 1) * conv->line + conv->out_w;
    if (conv->stride == 1 && conv->out_w % kernel->lanes == 0 && windows % (2 * kernel->lanes) == 0)
        conv->way = BY_LINES;
    else if (kernel->windows && windows * round_up(channels, panel) <=
                                    channels * round_up(conv->columns.count, 2 * kernel->lanes))
        conv->way = BY_WINDOWS;
    else
        conv->way = BY_COLUMNS;
}

static bool gathers(const struct conv *conv)
{
    return conv->way == BY_COLUMNS && conv->stride > 1;
}

static int pack_panels(struct conv *conv, struct layer *layer, const char *name, struct error *err)
{
    size_t channels = conv->out_channels / conv->groups;
    conv->panels = calloc_checked(conv->groups, sizeof *conv->panels, err);
    if (!conv->panels)
        return -1;
    layer->cost.weight_bytes -= conv->weight.count * sizeof(float);
    for (size_t group = 0; group < conv->groups; group++) {
        struct tensor part = {.name = (char *)name,
                              .dtype = DTYPE_F32,
                              .elements = channels * conv->k,
                              .data = conv->weight.values + group * channels * conv->k};
        if (gemm_init(&conv->panels[group], &part, channels, conv->k, err) != 0)
            return -1;
        layer->cost.weight_bytes += conv->panels[group].bytes;
    }
    return 0;
}

static int pack_groups(struct conv *conv, struct error *err)
{
    size_t channels = conv->out_channels / conv->groups;
    conv->packed = calloc_checked(conv->weight.count, sizeof *conv->packed, err);
    if (!conv->packed)
        return -1;
    for (size_t group = 0; group < conv->groups; group++) {
        size_t at = group * channels * conv->k;
        kernel_get()->pack_columns(conv->weight.values + at, channels, conv->k, conv->packed + at);
    }
    return 0;
}

/* Packs the weights as the product reads them, and frees the stored ones. */
static int pack(struct conv *conv, struct layer *layer, const struct scope *scope,
                struct error *err)
{
    const struct tensor *stored = tensor_peek(scope, "weight");
    if ((conv->way == BY_WINDOWS ? pack_panels(conv, layer, stored->name, err)
                                 : pack_groups(conv, err)) != 0)
        return -1;
    array_close(&conv->weight);
    tensor_drop_pages(stored);
    return 0;
}

/* Floats of workspace for one channel group. */
static size_t workspace_of(const struct conv *conv)
{
    size_t channels = conv->out_channels / conv->groups, columns = conv->columns.count;
    size_t gathered = gathers(conv) ? conv->k * columns + COLUMN_SLACK : 0;
    size_t results = conv->way == BY_WINDOWS   ? channels * conv->out_w
                     : conv->way == BY_COLUMNS ? channels * (columns + COLUMN_SLACK)
                                               : 0;
    return conv->padded_elements + gathered + results;
}

static int place_taps(struct conv *conv, struct error *err)
{
    size_t height = conv->in_h + 2 * conv->padding_h;
    size_t *offsets = calloc_checked(conv->k, sizeof *offsets, err);
    conv->columns.offsets = offsets;
    conv->window = calloc_checked(conv->k, sizeof *conv->window, err);
    if (!offsets || !conv->window)
        return -1;
    for (size_t k = 0; k < conv->k; k++) {
        size_t kw = k % conv->kernel_w, kh = k / conv->kernel_w % conv->kernel_h;
        size_t channel = k / conv->kernel_w / conv->kernel_h;
        conv->window[k] = (channel * height + kh) * conv->padded_w + kw;
        offsets[k] = gathers(conv) ? k * conv->columns.count : conv->window[k];
    }
    return 0;
}

static int plan(struct conv *conv, struct layer *layer, const struct scope *scope,
                const struct config_node *node, struct error *err)
{
    size_t channels = conv->in_channels / conv->groups;
    conv->padded_w = conv->in_w + 2 * conv->padding_w;
    conv->padded_elements =
        channels * (conv->in_h + 2 * conv->padding_h) * conv->padded_w + COLUMN_SLACK;
    choose_way(conv);
    plan_workspace(&layer->plan, workspace_of(conv));
    if (conv->k > MAX_ROW_ELEMENTS || layer->plan.workspace > MAX_ROW_ELEMENTS)
        return config_error(node, NULL, err, "one row needs more than %d numbers of workspace",
                            MAX_ROW_ELEMENTS);
    struct columns *columns = &conv->columns;
    if (conv->way == BY_LINES)
        *columns = (struct columns){NULL, conv->out_h * conv->out_w, conv->out_w, conv->padded_w};
    else
        columns->line = columns->pitch = round_up(columns->count, 2 * kernel_get()->lanes);
    if (place_taps(conv, err) != 0)
        return -1;
    return pack(conv, layer, scope, err);
}

static int conv_build(struct layer *layer, const struct scope *scope, struct config_node *node,
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
    if (claim_weight(layer, scope, axes, err) != 0)
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
    layer->cost.macs = (uint64_t)layer->out_elements * conv->k;
    return plan(conv, layer, scope, node, err);
}

static int conv1d_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    return conv_build(layer, scope, node, 1, err);
}

static int conv2d_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    return conv_build(layer, scope, node, 2, err);
}

static const float *bias_of(const struct conv *conv, size_t group)
{
    return conv->bias.values ? conv->bias.values + group * (conv->out_channels / conv->groups)
                             : NULL;
}

/* Lines have a few dozen numbers, for which a call of memcpy costs more than the copying. */
static inline void copy_line(float *to, const float *from, size_t count)
{
    enum { STEP = 8 };
    size_t i = 0;
    for (; i + STEP <= count; i += STEP)
        memcpy(to + i, from + i, STEP * sizeof *to);
    for (; i < count; i++)
        to[i] = from[i];
}

/* Clears `count` numbers, in pieces like copy_line()'s: up to seven more are cleared, which are
 * written next. */
static inline float *zeros(float *to, size_t count)
{
    static const float none[8];
    for (size_t i = 0; i < count; i += 8)
        memcpy(to + i, none, sizeof none);
    return to + count;
}

/* Writes the image of one channel group with its padding around it, which makes every window whole.
 * The padding between two lines, right of one and left of the next, is cleared in one piece. */
VECTORIZED static void pad(const struct conv *conv, const float *image, size_t channels, float *to)
{
    size_t edge = conv->padding_h * conv->padded_w + conv->padding_w;
    if (edge == 0) {
        memcpy(to, image, channels * conv->in_h * conv->in_w * sizeof *to);
        return;
    }
    for (size_t channel = 0; channel < channels; channel++) {
        to = zeros(to, edge);
        for (size_t h = 0; h < conv->in_h; h++, image += conv->in_w, to += conv->in_w) {
            if (h > 0)
                to = zeros(to, 2 * conv->padding_w);
            copy_line(to, image, conv->in_w);
        }
        to = zeros(to, edge);
    }
}

static struct filters filters_of(const struct conv *conv, size_t group)
{
    size_t channels = conv->out_channels / conv->groups;
    return (struct filters){conv->packed + group * channels * conv->k, bias_of(conv, group),
                            channels, conv->k};
}

static void by_lines(const struct conv *conv, size_t group, float *workspace, float *y)
{
    struct filters filters = filters_of(conv, group);
    kernel_get()->columns(&filters, &conv->columns, workspace, y, conv->out_h * conv->out_w);
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

/* Copies result lines, which are as wide as the padded image, without their tails, where windows
 * wrapped around its edge. */
VECTORIZED static void keep_lines(const struct conv *conv, const float *wide, size_t channels,
                                  size_t pitch, float *y)
{
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t oh = 0; oh < conv->out_h; oh++, y += conv->out_w)
            copy_line(y, wide + channel * pitch + oh * conv->line, conv->out_w);
}

static void by_columns(const struct conv *conv, size_t group, float *workspace, float *y)
{
    struct filters filters = filters_of(conv, group);
    size_t pitch = conv->columns.count + COLUMN_SLACK;
    const float *source = workspace;
    float *wide = workspace + conv->padded_elements;
    if (gathers(conv)) {
        gather_windows(conv, source, wide);
        source = wide;
        wide += conv->k * conv->columns.count + COLUMN_SLACK;
    }
    kernel_get()->columns(&filters, &conv->columns, source, wide, pitch);
    keep_lines(conv, wide, filters.count, pitch, y);
}

enum { QUAD = 4 };
typedef float quad __attribute__((vector_size(QUAD * sizeof(float))));

static inline quad load_quad(const float *from)
{
    quad value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* Transposes four by four numbers: lines `pitch` apart become columns of lines `to_pitch` apart. */
static inline void transpose_quad(const float *from, size_t pitch, float *to, size_t to_pitch)
{
    const quad a = load_quad(from), b = load_quad(from + pitch), c = load_quad(from + 2 * pitch),
               d = load_quad(from + 3 * pitch);
    const quad ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
               ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
               cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
               cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const quad transposed[QUAD] = {__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
                                   __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
                                   __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
                                   __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
    for (size_t i = 0; i < QUAD; i++)
        memcpy(to + i * to_pitch, &transposed[i], sizeof transposed[i]);
}

/* y[channel * pitch + window] = line[window][channel]. Goes channel by channel: planes are often
 * powers of two apart, and the cache holds only a few of their lines at once. */
VECTORIZED static void transpose_line(const float *line, size_t windows, size_t channels,
                                      size_t pitch, float *y)
{
    size_t channel = 0;
    for (; channel + QUAD <= channels; channel += QUAD) {
        size_t window = 0;
        for (; window + QUAD <= windows; window += QUAD)
            transpose_quad(line + window * channels + channel, channels,
                           y + channel * pitch + window, pitch);
        for (; window < windows; window++)
            for (size_t i = channel; i < channel + QUAD; i++)
                y[i * pitch + window] = line[window * channels + i];
    }
    for (; channel < channels; channel++)
        for (size_t window = 0; window < windows; window++)
            y[channel * pitch + window] = line[window * channels + channel];
}

static void by_windows(const struct conv *conv, size_t group, float *workspace, float *y)
{
    size_t channels = conv->out_channels / conv->groups, plane = conv->out_h * conv->out_w;
    float *line = workspace + conv->padded_elements;
    for (size_t oh = 0; oh < conv->out_h; oh++) {
        struct windows windows = {workspace + oh * conv->stride * conv->padded_w, conv->stride,
                                  conv->window, conv->out_w};
        gemm_windows(&conv->panels[group], &windows, bias_of(conv, group), line);
        transpose_line(line, conv->out_w, channels, plane, y + oh * conv->out_w);
    }
}

static void conv_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    const struct conv *conv = layer->state;
    size_t in_group = layer->in_elements / conv->groups;
    size_t out_group = layer->out_elements / conv->groups;
    void (*const convolve[])(const struct conv *conv, size_t group, float *workspace, float *y) = {
        [BY_LINES] = by_lines, [BY_WINDOWS] = by_windows, [BY_COLUMNS] = by_columns};
    float *workspace = run_workspace(run);
    for (size_t i = 0; i < rows * conv->groups; i++) {
        pad(conv, x + i * in_group, conv->in_channels / conv->groups, workspace);
        convolve[conv->way](conv, i % conv->groups, workspace, y + i * out_group);
    }
}

static void conv_free(struct layer *layer)
{
    struct conv *conv = layer->state;
    if (!conv)
        return;
    for (size_t group = 0; conv->panels && group < conv->groups; group++)
        gemm_close(&conv->panels[group]);
    free(conv->panels);
    free(conv->packed);
    array_close(&conv->weight);
    array_close(&conv->bias);
    free(conv->window);
    free((size_t *)conv->columns.offsets);
}

const struct layer_op op_conv1d = {
    .name = "conv1d", .build = conv1d_build, .forward = conv_forward, .free = conv_free};
const struct layer_op op_conv2d = {
    .name = "conv2d", .build = conv2d_build, .forward = conv_forward, .free = conv_free};

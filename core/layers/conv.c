/* conv1d, conv2d: cross-correlation with zero padding, as PyTorch's. weight [out, in/groups, kernel
 * axes], bias [out] if the tensor is there. A conv1d is a conv2d of height 1.
 *
 * Every row is convolved by itself, so its result cannot depend on its batch. Its image is written
 * with its padding around it (conv_image.c), which makes every window whole: the windows of one
 * kernel tap are then the padded image shifted, and products read it at one offset per tap
 * (conv_product.c). */
#include "core/layers/conv.h"

#include <stdlib.h>
#include <string.h>

#include "core/layers/ops.h"
#include "core/memory.h"

/* Bounds strides and paddings: no image needs more, and the arithmetic below cannot overflow. */
enum { MAX_CONV_STEP = 4096 };

static size_t output_size(size_t padded, size_t kernel, size_t stride)
{
    return padded < kernel ? 0 : (padded - kernel) / stride + 1;
}

/* "padding": a number, or "same", which keeps the size; the kernel's shape is known. */
static int read_padding(struct conv *conv, const struct scope *scope, struct config_node *node,
                        size_t axes, struct error *err)
{
    static const char *const names[] = {"same", NULL};
    int64_t padding;
    int same;
    if (!config_is_text(node, "padding")) {
        if (config_integer(node, "padding", 0, within(0, MAX_CONV_STEP), &padding, err) != 0)
            return -1;
        conv->left = conv->right = (size_t)padding;
        conv->top = conv->bottom = axes == 2 ? (size_t)padding : 0;
        return 0;
    }
    if (config_since(node, 3, scope->loading->format, KEYS("padding"), err) != 0 ||
        config_choice(node, "padding", names, -1, &same, err) != 0)
        return -1;
    if (conv->stride != 1)
        return config_error(node, "padding", err, "\"same\" goes with stride 1 only");
    conv->top = (conv->kernel_h - 1) / 2;
    conv->bottom = conv->kernel_h - 1 - conv->top;
    conv->left = (conv->kernel_w - 1) / 2;
    conv->right = conv->kernel_w - 1 - conv->left;
    return 0;
}

static int read_options(struct conv *conv, struct config_node *node, struct error *err)
{
    int64_t stride, groups;
    if (config_integer(node, "stride", 1, within(1, MAX_CONV_STEP), &stride, err) != 0 ||
        config_integer(node, "groups", 1, within(1, MAX_ROW_ELEMENTS), &groups, err) != 0)
        return -1;
    conv->stride = (size_t)stride;
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
        return tensor_error(weight, err, ERROR_INVALID, " has %zu %s, expected %zu", weight->rank,
                            weight->rank == 1 ? "axis" : "axes", axes + 2);
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

/* Filters of a group of one input channel that are too few to fill a tile. */
enum { FEW_FILTERS = 3 };

/* Weights of one group beyond this many bytes are not read again for every line of windows. */
enum { CACHED_WEIGHTS = 512 << 10 };

/* The product that computes the fewest numbers, of whole vectors. */
static enum conv_way choose_way(const struct conv *conv)
{
    const struct kernel *kernel = kernel_get();
    size_t channels = conv->out_channels / conv->groups, panel = kernel->panel;
    size_t windows = conv->out_h * conv->out_w;
    if (conv->in_channels == conv->groups && channels <= FEW_FILTERS)
        return conv_depthwise_suits(conv) ? BY_DEPTHWISE : BY_CHANNELS;
    if (conv->out_w % kernel->lanes == 0 && windows % (2 * kernel->lanes) == 0)
        return BY_LINES;
    if (!kernel->windows || windows * round_up(channels, panel) >
                                channels * round_up(conv->columns.count, 2 * kernel->lanes))
        return BY_COLUMNS;
    return channels * conv->k * sizeof(float) > CACHED_WEIGHTS && conv_images_at_once(conv) > 1
               ? BY_IMAGES
               : BY_WINDOWS;
}

static bool packs_panels(const struct conv *conv)
{
    return conv->way == BY_WINDOWS || conv->way == BY_IMAGES;
}

static int pack_panels(struct conv *conv, struct layer *layer, const struct scope *scope,
                       const char *name, struct error *err)
{
    const struct precision precision = {.sizes_only = scope->precision.sizes_only};
    size_t channels = conv->out_channels / conv->groups;
    conv->panels = calloc_checked(conv->groups, sizeof *conv->panels, err);
    if (!conv->panels)
        return -1;
    layer->cost.weight_bytes -= conv->weight.count * sizeof(float);
    layer->cost.shared_bytes -= conv->weight.count * sizeof(float);
    for (size_t group = 0; group < conv->groups; group++) {
        const struct tensor part = {.name = (char *)name,
                                    .dtype = DTYPE_F32,
                                    .elements = channels * conv->k,
                                    .data = conv->weight.values + group * channels * conv->k};
        if (gemm_init_rounded(&conv->panels[group], &precision, &part, channels, conv->k, err) != 0)
            return -1;
        layer->cost.weight_bytes += conv->panels[group].bytes;
        layer->cost.shared_bytes += conv->panels[group].bytes;
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

/* Packs the weights as the product reads them, and gives the stored ones back. */
static int pack(struct conv *conv, struct layer *layer, const struct scope *scope,
                struct error *err)
{
    const struct tensor *stored = tensor_peek(scope, "weight");
    if (conv->way == BY_CHANNELS)
        return 0;
    layer->cost.mapped_bytes -= conv->weight.mapped_bytes;
    if (packs_panels(conv) && pack_panels(conv, layer, scope, stored->name, err) != 0)
        return -1;
    if (conv->way == BY_DEPTHWISE) {
        uint64_t more = (conv_depthwise_packed(conv) - conv->weight.count) * sizeof *conv->packed;
        layer->cost.weight_bytes += more;
        layer->cost.shared_bytes += more;
    }
    if (!packs_panels(conv) && !scope->loading->headers_only &&
        (conv->way == BY_DEPTHWISE ? conv_depthwise_pack : pack_groups)(conv, err) != 0)
        return -1;
    array_close(&conv->weight);
    tensor_drop_pages(stored);
    return 0;
}

/* Where each tap's first window begins in the padded image, whose phases follow each other. */
static int place_taps(struct conv *conv, struct error *err)
{
    size_t phase = conv->line_h * conv->line_w, stride = conv->stride;
    conv->window = calloc_checked(conv->k, sizeof *conv->window, err);
    if (!conv->window)
        return -1;
    for (size_t k = 0; k < conv->k; k++) {
        size_t kw = k % conv->kernel_w, kh = k / conv->kernel_w % conv->kernel_h;
        size_t channel = k / conv->kernel_w / conv->kernel_h;
        size_t number = (channel * conv->phases_h + kh % stride) * conv->phases_w + kw % stride;
        conv->window[k] = number * phase + kh / stride * conv->line_w + kw / stride;
    }
    return 0;
}

/* Many filters read windows that were copied side by side. Without a stride the taps of a kernel's
 * line are neighbours, and so are their windows. */
static int place_panel(struct conv *conv, struct error *err)
{
    enum { MANY_FILTERS = 12 };
    struct columns *columns = &conv->columns;
    if (conv->out_channels / conv->groups <= MANY_FILTERS)
        return 0;
    columns->span = conv->stride == 1 ? conv->kernel_w : 1;
    size_t part = kernel_get()->lanes + columns->span - 1;
    size_t *offsets = calloc_checked(conv->k, sizeof *offsets, err);
    columns->panel_offsets = offsets;
    for (size_t k = 0; offsets && k < conv->k; k++)
        offsets[k] = k / columns->span * 2 * part + k % columns->span;
    columns->panel_floats = conv->k / columns->span * 2 * part;
    return offsets ? 0 : -1;
}

static int plan_columns(struct conv *conv, struct error *err)
{
    size_t lanes = kernel_get()->lanes;
    struct columns *columns = &conv->columns;
    columns->offsets = conv->window;
    columns->line = columns->pitch = round_up(columns->count, 2 * lanes);
    if (conv->way == BY_LINES)
        *columns = (struct columns){.offsets = conv->window,
                                    .count = conv->out_h * conv->out_w,
                                    .line = conv->out_w,
                                    .pitch = conv->line_w};
    return conv->way == BY_LINES || conv->way == BY_COLUMNS ? place_panel(conv, err) : 0;
}

/* What is made beside the packed weights: taps, lanes without a channel, and a product for each
 * group, of which a depthwise filter of a few numbers may have millions. */
static int take_tables(const struct conv *conv, const struct scope *scope,
                       const struct config_node *node, struct error *err)
{
    if (scope_take(scope, node, "taps", conv->k, 2 * sizeof *conv->window, err) != 0)
        return -1;
    if (conv->way == BY_DEPTHWISE)
        return scope_take(scope, node, "filters", conv_depthwise_packed(conv), sizeof *conv->packed,
                          err);
    if (!packs_panels(conv))
        return 0;
    const size_t channels = conv->out_channels / conv->groups;
    const size_t padding = round_up(channels, kernel_get()->panel) - channels;
    return scope_take(scope, node, "groups", conv->groups,
                      sizeof *conv->panels + padding * conv->k * sizeof(float), err);
}

static int plan(struct conv *conv, struct layer *layer, const struct scope *scope,
                const struct config_node *node, struct error *err)
{
    size_t channels = conv->in_channels / conv->groups, stride = conv->stride;
    conv->phases_h = conv->kernel_h < stride ? conv->kernel_h : stride;
    conv->phases_w = conv->kernel_w < stride ? conv->kernel_w : stride;
    conv->line_h = conv->out_h + (conv->kernel_h - 1) / stride;
    conv->line_w = conv->out_w + (conv->kernel_w - 1) / stride;
    conv->columns.count = (conv->out_h - 1) * conv->line_w + conv->out_w;
    conv->padded_elements =
        channels * conv->phases_h * conv->phases_w * conv->line_h * conv->line_w + COLUMN_SLACK;
    conv->way = choose_way(conv);
    conv->direct = stride == 1 && conv->top + conv->bottom + conv->left + conv->right == 0 &&
                   (packs_panels(conv) || conv->way == BY_LINES);
    if (conv->k > MAX_ROW_ELEMENTS || conv->padded_elements > MAX_ROW_ELEMENTS)
        return config_error(node, NULL, err, "one row needs more than %d numbers of workspace",
                            MAX_ROW_ELEMENTS);
    if (take_tables(conv, scope, node, err) != 0)
        return -1;
    if (conv->way == BY_DEPTHWISE ? conv_depthwise_plan(conv, err) != 0
                                  : place_taps(conv, err) != 0 || plan_columns(conv, err) != 0)
        return -1;
    plan_workspace(&layer->plan, conv->padded_elements + conv_product_floats(conv));
    if (layer->plan.workspace > MAX_ROW_ELEMENTS)
        return config_error(node, NULL, err, "one row needs more than %d numbers of workspace",
                            MAX_ROW_ELEMENTS);
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
    if (claim_weight(layer, scope, axes, err) != 0 ||
        read_padding(conv, scope, node, axes, err) != 0)
        return -1;
    conv->out_h = output_size(conv->in_h + conv->top + conv->bottom, conv->kernel_h, conv->stride);
    conv->out_w = output_size(conv->in_w + conv->left + conv->right, conv->kernel_w, conv->stride);
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

static void conv_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    const struct conv *conv = layer->state;
    size_t in_group = layer->in_elements / conv->groups;
    size_t out_group = layer->out_elements / conv->groups;
    size_t most = conv->way == BY_IMAGES ? conv_images_at_once(conv) : 1;
    for (size_t row = 0; row < rows; row += most) {
        size_t count = rows - row < most ? rows - row : most;
        for (size_t group = 0; group < (conv->way == BY_DEPTHWISE ? 1 : conv->groups); group++)
            CONV_PRODUCTS[conv->way](conv, group, count, x + group * in_group, run_workspace(run),
                                     y + group * out_group);
        x += count * layer->in_elements;
        y += count * layer->out_elements;
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
    free((uint32_t *)conv->depthwise.places);
    free((size_t *)conv->columns.panel_offsets);
}

const struct layer_op op_conv1d = {
    .name = "conv1d", .build = conv1d_build, .forward = conv_forward, .free = conv_free};
const struct layer_op op_conv2d = {
    .name = "conv2d", .build = conv2d_build, .forward = conv_forward, .free = conv_free};

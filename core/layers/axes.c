/* flatten, reshape, sum, mean, max, select, slice, transpose: layers that only rearrange or reduce
 * a row's axes. */
#include <string.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/memory.h"

static int flatten_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                         struct error *err)
{
    (void)scope;
    struct moed_shape out = {.rank = 1, .dims = {layer->in_elements}};
    return layer_set_out(layer, node, &out, err);
}

static int reshape_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                         struct error *err)
{
    (void)scope;
    struct moed_shape out;
    char from[SHAPE_TEXT_BYTES], to[SHAPE_TEXT_BYTES];
    if (config_shape(node, "shape", 1, &out, err) != 0 ||
        layer_set_out(layer, node, &out, err) != 0)
        return -1;
    if (layer->out_elements != layer->in_elements)
        return config_error(node, "shape", err,
                            "%s has another number of elements than the input %s",
                            shape_text(&out, to), shape_text(&layer->in, from));
    return 0;
}

static void copy_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    (void)run;
    if (x != y)
        memcpy(y, x, rows * layer->in_elements * sizeof *y);
}

/* A row is viewed as [outer, axis, inner]; the axis is reduced. */
struct reduction {
    size_t outer, axis, inner;
    float factor;  /* sum, mean */
    size_t index;  /* select, slice: the first entry */
    bool last;     /* select: the last entry, that of its own length where a row has one */
    bool averages; /* mean */
    bool masked;   /* the axis ends in padding */
};

/* Reduces node's `axis`; `otherwise` is the default. */
static int reduction_build(struct layer *layer, struct config_node *node, int64_t otherwise,
                           struct error *err)
{
    struct reduction *reduction = layer->state = xcalloc(1, sizeof *reduction);
    struct moed_shape out = {.rank = 0};
    size_t at;
    if (layer_read_axis(layer, node, otherwise, &at, err) != 0)
        return -1;
    reduction->outer = reduction->inner = 1;
    for (size_t i = 0; i < layer->in.rank; i++) {
        if (i == at)
            continue;
        out.dims[out.rank++] = layer->in.dims[i];
        *(i < at ? &reduction->outer : &reduction->inner) *= layer->in.dims[i];
    }
    reduction->axis = layer->in.dims[at];
    reduction->factor = 1.0f;
    reduction->masked = layer->padded_in && at == 0;
    layer->padded = layer->padded_in && at != 0;
    return layer_set_out(layer, node, &out, err);
}

static int sum_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    (void)scope;
    return reduction_build(layer, node, CONFIG_REQUIRED, err);
}

static int mean_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                      struct error *err)
{
    (void)scope;
    if (reduction_build(layer, node, CONFIG_REQUIRED, err) != 0)
        return -1;
    struct reduction *reduction = layer->state;
    reduction->factor = 1.0f / (float)reduction->axis;
    reduction->averages = true;
    return 0;
}

/* Entries of the axis that count, in line `outer` of all rows' lines. */
static size_t entries_of(const struct reduction *reduction, const struct run *run, size_t line)
{
    return reduction->masked ? run_length(run, line) : reduction->axis;
}

VECTORIZED static void reduction_forward(const struct layer *layer, const struct run *run,
                                         size_t rows, const float *x, float *y)
{
    const struct reduction *reduction = layer->state;
    size_t inner = reduction->inner, slab = reduction->axis * inner;
    for (size_t i = 0; i < rows * reduction->outer; i++, x += slab, y += inner) {
        size_t entries = entries_of(reduction, run, i);
        float factor = reduction->factor;
        if (reduction->masked && reduction->averages)
            factor = entries ? 1.0f / (float)entries : 0.0f;
        memset(y, 0, inner * sizeof *y);
        for (size_t j = 0; j < entries; j++)
            for (size_t k = 0; k < inner; k++)
                y[k] += x[j * inner + k];
        for (size_t k = 0; k < inner; k++)
            y[k] *= factor;
    }
}

static int select_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    static const char *const names[] = {"last", NULL};
    int64_t index;
    int last;
    if (reduction_build(layer, node, 0, err) != 0)
        return -1;
    struct reduction *reduction = layer->state;
    if (config_is_text(node, "index")) {
        reduction->last = true;
        reduction->index = reduction->axis - 1;
        return config_since(node, 3, scope->loading->format, KEYS("index"), err) != 0
                   ? -1
                   : config_choice(node, "index", names, -1, &last, err);
    }
    if (config_integer(node, "index", CONFIG_REQUIRED, within(0, (int64_t)reduction->axis - 1),
                       &index, err) != 0)
        return -1;
    reduction->index = (size_t)index;
    if (reduction->masked && index > 0)
        return config_error(node, "index", err, "may be padding: expected 0 or \"last\"");
    return 0;
}

/* Of a row without entries it is 0. */
static void select_forward(const struct layer *layer, const struct run *run, size_t rows,
                           const float *x, float *y)
{
    const struct reduction *reduction = layer->state;
    size_t inner = reduction->inner, slab = reduction->axis * inner;
    for (size_t i = 0; i < rows * reduction->outer; i++) {
        size_t entries = entries_of(reduction, run, i);
        size_t index = reduction->last ? entries - 1 : reduction->index;
        if (entries)
            memcpy(y + i * inner, x + i * slab + index * inner, inner * sizeof *y);
        else
            memset(y + i * inner, 0, inner * sizeof *y);
    }
}

/* max: the largest along an axis; NaN where one is, as in PyTorch. */
VECTORIZED static void max_forward(const struct layer *layer, const struct run *run, size_t rows,
                                   const float *x, float *y)
{
    const struct reduction *reduction = layer->state;
    size_t inner = reduction->inner, slab = reduction->axis * inner;
    for (size_t i = 0; i < rows * reduction->outer; i++, x += slab, y += inner) {
        size_t entries = entries_of(reduction, run, i);
        if (entries)
            memcpy(y, x, inner * sizeof *y);
        else
            memset(y, 0, inner * sizeof *y);
        for (size_t j = 1; j < entries; j++)
            for (size_t k = 0; k < inner; k++) {
                const float value = x[j * inner + k];
                y[k] = value > y[k] || value != value ? value : y[k];
            }
    }
}

/* slice: entries [start, end) of an axis. */
static int slice_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                       struct error *err)
{
    (void)scope;
    size_t axis;
    int64_t start, end;
    if (reduction_build(layer, node, 0, err) != 0 ||
        layer_read_axis(layer, node, 0, &axis, err) != 0)
        return -1;
    struct reduction *reduction = layer->state;
    int64_t size = (int64_t)reduction->axis;
    if (config_integer(node, "start", 0, within(0, size - 1), &start, err) != 0 ||
        config_integer(node, "end", size, within(start + 1, size), &end, err) != 0)
        return -1;
    reduction->index = (size_t)start;
    if (reduction->masked)
        return config_error(node, "axis", err, "the first axis ends in padding");
    struct moed_shape out = layer->in;
    out.dims[axis] = (size_t)(end - start);
    return layer_set_out(layer, node, &out, err);
}

static void slice_forward(const struct layer *layer, const struct run *run, size_t rows,
                          const float *x, float *y)
{
    (void)run;
    const struct reduction *reduction = layer->state;
    size_t slab = reduction->axis * reduction->inner;
    size_t kept = layer->out_elements / reduction->outer;
    for (size_t i = 0; i < rows * reduction->outer; i++)
        memcpy(y + i * kept, x + i * slab + reduction->index * reduction->inner, kept * sizeof *y);
}

static int transpose_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                           struct error *err)
{
    (void)scope;
    struct moed_shape out = layer->in;
    if (out.rank < 2)
        return config_error(node, NULL, err, "transpose needs at least two axes");
    out.dims[out.rank - 2] = layer->in.dims[out.rank - 1];
    out.dims[out.rank - 1] = layer->in.dims[out.rank - 2];
    return layer_set_out(layer, node, &out, err);
}

static void transpose_forward(const struct layer *layer, const struct run *run, size_t rows,
                              const float *x, float *y)
{
    (void)run;
    size_t height = layer->in.dims[layer->in.rank - 2];
    size_t width = layer->in.dims[layer->in.rank - 1];
    size_t planes = rows * layer->in_elements / (height * width);
    for (size_t plane = 0; plane < planes; plane++, x += height * width)
        for (size_t column = 0; column < width; column++)
            for (size_t line = 0; line < height; line++)
                *y++ = x[line * width + column];
}

const struct layer_op op_flatten = {
    .name = "flatten", .in_place = true, .build = flatten_build, .forward = copy_forward};
const struct layer_op op_reshape = {
    .name = "reshape", .in_place = true, .build = reshape_build, .forward = copy_forward};
const struct layer_op op_sum = {
    .name = "sum", .padding = PADDING_OWN, .build = sum_build, .forward = reduction_forward};
const struct layer_op op_mean = {
    .name = "mean", .padding = PADDING_OWN, .build = mean_build, .forward = reduction_forward};
const struct layer_op op_select = {.name = "select",
                                   .padding = PADDING_OWN,
                                   .format = 2,
                                   .build = select_build,
                                   .forward = select_forward};
const struct layer_op op_transpose = {
    .name = "transpose", .format = 2, .build = transpose_build, .forward = transpose_forward};
const struct layer_op op_max = {
    .name = "max", .padding = PADDING_OWN, .format = 3, .build = sum_build, .forward = max_forward};
const struct layer_op op_slice = {.name = "slice",
                                  .padding = PADDING_OWN,
                                  .format = 3,
                                  .build = slice_build,
                                  .forward = slice_forward};

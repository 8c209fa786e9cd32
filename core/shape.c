/* flatten, reshape, sum, mean: layers that only look at a row's axes. */
#include "layer.h"

#include <string.h>

static int flatten_build(struct layer *layer, struct build *build, struct config_node *node,
                         struct error *err)
{
    (void)build;
    struct moed_shape out = {.rank = 1, .dims = {layer->in_elements}};
    return layer_set_out(layer, node, &out, err);
}

static int reshape_build(struct layer *layer, struct build *build, struct config_node *node,
                         struct error *err)
{
    (void)build;
    struct moed_shape out;
    char from[SHAPE_TEXT_BYTES], to[SHAPE_TEXT_BYTES];
    if (config_shape(node, "shape", &out, err) != 0 || layer_set_out(layer, node, &out, err) != 0)
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

/* A row seen as [outer, axis, inner]; the axis is summed away. */
struct reduction {
    size_t outer, axis, inner;
    float factor;
};

static int reduction_build(struct layer *layer, struct config_node *node, bool mean,
                           struct error *err)
{
    struct reduction *reduction = layer->state = xcalloc(1, sizeof *reduction);
    const int64_t rank = (int64_t)layer->in.rank;
    struct moed_shape out = {.rank = 0};
    int64_t axis;
    if (config_integer(node, "axis", CONFIG_REQUIRED, -rank, rank - 1, &axis, err) != 0)
        return -1;
    size_t at = (size_t)(axis < 0 ? axis + rank : axis);
    reduction->outer = reduction->inner = 1;
    for (size_t i = 0; i < layer->in.rank; i++) {
        if (i == at)
            continue;
        out.dims[out.rank++] = layer->in.dims[i];
        *(i < at ? &reduction->outer : &reduction->inner) *= layer->in.dims[i];
    }
    reduction->axis = layer->in.dims[at];
    reduction->factor = mean ? 1.0f / (float)reduction->axis : 1.0f;
    return layer_set_out(layer, node, &out, err);
}

static int sum_build(struct layer *layer, struct build *build, struct config_node *node,
                     struct error *err)
{
    (void)build;
    return reduction_build(layer, node, false, err);
}

static int mean_build(struct layer *layer, struct build *build, struct config_node *node,
                      struct error *err)
{
    (void)build;
    return reduction_build(layer, node, true, err);
}

static void reduction_forward(const struct layer *layer, const struct run *run, size_t rows,
                              const float *x, float *y)
{
    (void)run;
    const struct reduction *reduction = layer->state;
    const size_t inner = reduction->inner;
    for (size_t i = 0; i < rows * reduction->outer; i++, y += inner) {
        memset(y, 0, inner * sizeof *y);
        for (size_t j = 0; j < reduction->axis; j++, x += inner)
            for (size_t k = 0; k < inner; k++)
                y[k] += x[k];
        for (size_t k = 0; k < inner; k++)
            y[k] *= reduction->factor;
    }
}

const struct layer_op op_flatten = {
    .name = "flatten", .in_place = true, .build = flatten_build, .forward = copy_forward};
const struct layer_op op_reshape = {
    .name = "reshape", .in_place = true, .build = reshape_build, .forward = copy_forward};
const struct layer_op op_sum = {.name = "sum", .build = sum_build, .forward = reduction_forward};
const struct layer_op op_mean = {.name = "mean", .build = mean_build, .forward = reduction_forward};

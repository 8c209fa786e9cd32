/* linear: y = x W^T + b over the last axis; weight [out, in], bias [out] if the tensor is there. */
#include "core/layers/ops.h"
#include "core/layers/projection.h"
#include "core/memory.h"

struct linear {
    struct projection projection;
    size_t vectors; /* per row: the product of the axes before the last */
};

static int linear_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    struct linear *linear = layer->state = xcalloc(1, sizeof *linear);
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "linear needs at least one axis");
    struct moed_shape out = layer->in;
    size_t *last = &out.dims[out.rank - 1];
    if (projection_build(&linear->projection, scope, "weight", 0, *last, err) != 0 ||
        projection_build_bias(&linear->projection, scope, "bias", err) != 0)
        return -1;
    linear->vectors = layer->in_elements / *last;
    *last = linear->projection.gemm.n;
    layer->cost.macs = layer->in_elements * *last;
    layer->collective = projection_is_large(&linear->projection);
    return layer_set_out(layer, node, &out, err);
}

static void linear_forward(const struct layer *layer, const struct run *run, size_t rows,
                           const float *x, float *y)
{
    const struct linear *linear = layer->state;
    projection_share(&linear->projection, run->team, rows * linear->vectors, x, y);
}

static void linear_free(struct layer *layer)
{
    struct linear *linear = layer->state;
    if (linear)
        projection_close(&linear->projection);
}

const struct layer_op op_linear = {.name = "linear",
                                   .padding = PADDING_LAST_AXIS,
                                   .build = linear_build,
                                   .forward = linear_forward,
                                   .free = linear_free};

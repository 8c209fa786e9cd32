/* linear: y = x W^T + b over the last axis; weight [out, in], bias [out] if the tensor is there. */
#include "layer.h"

struct linear {
    struct gemm gemm;
    struct array bias;
    size_t positions; /* vectors per row: the product of the axes before the last */
};

static int linear_build(struct layer *layer, struct build *build, struct config_node *node,
                        struct error *err)
{
    struct linear *linear = layer->state = xcalloc(1, sizeof *linear);
    struct tensor *weight = tensor_claim(layer, build, "weight", err);
    if (!weight)
        return -1;
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "linear needs at least one axis");
    const size_t k = layer->in.dims[layer->in.rank - 1], n = weight->dims[0];
    if (tensor_expect(weight, (size_t[]){n, k}, 2, err) != 0)
        return -1;
    struct moed_shape out = layer->in;
    out.dims[out.rank - 1] = n;
    if (layer_set_out(layer, node, &out, err) != 0 ||
        gemm_init(&linear->gemm, weight, n, k, err) != 0)
        return -1;
    tensor_drop_pages(weight);
    layer->parameters = layer->active_parameters = weight->elements;
    layer->weight_bytes = linear->gemm.bytes;
    linear->positions = layer->in_elements / k;
    layer->macs = linear->positions * n * k;
    return array_build(&linear->bias, layer, build, "bias", &n, 1, false, err);
}

static void linear_forward(const struct layer *layer, const struct run *run, size_t rows,
                           const float *x, float *y)
{
    (void)run;
    const struct linear *linear = layer->state;
    gemm_rows(&linear->gemm, x, rows * linear->positions, linear->bias.values, y);
}

static void linear_free(struct layer *layer)
{
    struct linear *linear = layer->state;
    if (!linear)
        return;
    gemm_close(&linear->gemm);
    array_close(&linear->bias);
}

const struct layer_op op_linear = {
    .name = "linear", .build = linear_build, .forward = linear_forward, .free = linear_free};

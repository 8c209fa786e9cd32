/* glu: y = activation(x Wg^T + bg) * (x Wu^T + bu) over the last axis; gate.weight and up.weight
 * [out, in], biases if the tensors are there (Shazeer 2020, "GLU Variants Improve Transformer"). */
#include "layer.h"

#include <math.h>

struct glu {
    struct gemm gate, up;
    struct array gate_bias, up_bias;
    size_t positions; /* vectors per row */
    int activation;
};

enum { GLU_SILU, GLU_GELU, GLU_GELU_TANH, GLU_SIGMOID, GLU_RELU };

static int build_half(struct layer *layer, const struct build *build, const char *weight_suffix,
                      const char *bias_suffix, size_t n, struct gemm *gemm, struct array *bias,
                      struct error *err)
{
    const size_t k = layer->in.dims[layer->in.rank - 1];
    struct tensor *weight = tensor_claim(layer, build, weight_suffix, err);
    if (!weight || tensor_expect(weight, (size_t[]){n ? n : weight->dims[0], k}, 2, err) != 0 ||
        gemm_init(gemm, weight, weight->dims[0], k, err) != 0)
        return -1;
    tensor_drop_pages(weight);
    layer->parameters += weight->elements;
    layer->active_parameters += weight->elements;
    layer->weight_bytes += gemm->bytes;
    layer->macs += layer->in_elements * weight->dims[0];
    return array_build(bias, layer, build, bias_suffix, &weight->dims[0], 1, false, err);
}

static int glu_build(struct layer *layer, struct build *build, struct config_node *node,
                     struct error *err)
{
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "sigmoid", "relu", NULL};
    struct glu *glu = layer->state = xcalloc(1, sizeof *glu);
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "glu needs at least one axis");
    if (config_choice(node, "activation", names, GLU_SILU, &glu->activation, err) != 0 ||
        build_half(layer, build, "gate.weight", "gate.bias", 0, &glu->gate, &glu->gate_bias, err) !=
            0 ||
        build_half(layer, build, "up.weight", "up.bias", glu->gate.n, &glu->up, &glu->up_bias,
                   err) != 0)
        return -1;
    struct moed_shape out = layer->in;
    glu->positions = layer->in_elements / out.dims[out.rank - 1];
    out.dims[out.rank - 1] = glu->gate.n;
    if (layer_set_out(layer, node, &out, err) != 0)
        return -1;
    layer->scratch_per_row = layer->out_elements;
    return 0;
}

/* y = activation(y) * up, the activations as in activation.c. */
static void gate_up(int activation, size_t count, const float *restrict up, float *restrict y)
{
    const float root_half = 0.70710678118654752f, root_two_over_pi = 0.79788456080286536f;
    switch (activation) {
    case GLU_SILU:
        for (size_t i = 0; i < count; i++)
            y[i] = y[i] / (1.0f + expf(-y[i])) * up[i];
        break;
    case GLU_GELU:
        for (size_t i = 0; i < count; i++)
            y[i] = 0.5f * y[i] * (1.0f + erff(y[i] * root_half)) * up[i];
        break;
    case GLU_GELU_TANH:
        for (size_t i = 0; i < count; i++) {
            const float inner = root_two_over_pi * (y[i] + 0.044715f * y[i] * y[i] * y[i]);
            y[i] = 0.5f * y[i] * (1.0f + tanhf(inner)) * up[i];
        }
        break;
    case GLU_SIGMOID:
        for (size_t i = 0; i < count; i++)
            y[i] = 1.0f / (1.0f + expf(-y[i])) * up[i];
        break;
    default:
        for (size_t i = 0; i < count; i++)
            y[i] = (y[i] < 0.0f ? 0.0f : y[i]) * up[i];
    }
}

static void glu_forward(const struct layer *layer, const struct run *run, size_t rows,
                        const float *x, float *y)
{
    const struct glu *glu = layer->state;
    float *up = run->arena;
    gemm_rows(&glu->gate, x, rows * glu->positions, glu->gate_bias.values, y);
    gemm_rows(&glu->up, x, rows * glu->positions, glu->up_bias.values, up);
    gate_up(glu->activation, rows * layer->out_elements, up, y);
}

static void glu_free(struct layer *layer)
{
    struct glu *glu = layer->state;
    if (!glu)
        return;
    gemm_close(&glu->gate);
    gemm_close(&glu->up);
    array_close(&glu->gate_bias);
    array_close(&glu->up_bias);
}

const struct layer_op op_glu = {
    .name = "glu", .format = 2, .build = glu_build, .forward = glu_forward, .free = glu_free};

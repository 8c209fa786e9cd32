/* glu: y = activation(x Wg^T + bg) * (x Wu^T + bu) over the last axis; gate.weight and up.weight
 * [out, in], biases if the tensors are there (Shazeer 2020, "GLU Variants Improve Transformer"). */
#include <math.h>

#include "core/layers/projection.h"

struct glu {
    struct projection gate, up;
    size_t vectors; /* per row: the product of the axes before the last */
    int activation;
};

enum { GLU_SILU, GLU_GELU, GLU_GELU_TANH, GLU_SIGMOID, GLU_RELU };

static int glu_build(struct layer *layer, struct build *build, struct config_node *node,
                     struct error *err)
{
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "sigmoid", "relu", NULL};
    struct glu *glu = layer->state = xcalloc(1, sizeof *glu);
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "glu needs at least one axis");
    struct moed_shape out = layer->in;
    size_t *last = &out.dims[out.rank - 1];
    if (config_choice(node, "activation", names, GLU_SILU, &glu->activation, err) != 0 ||
        projection_build(&glu->gate, layer, build, "gate.weight", "gate.bias", 0, *last, err) !=
            0 ||
        projection_build(&glu->up, layer, build, "up.weight", "up.bias", glu->gate.gemm.n, *last,
                         err) != 0)
        return -1;
    glu->vectors = layer->in_elements / *last;
    *last = glu->gate.gemm.n;
    layer->macs = 2 * layer->in_elements * *last;
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
    projection_forward(&glu->gate, rows * glu->vectors, x, y);
    projection_forward(&glu->up, rows * glu->vectors, x, up);
    gate_up(glu->activation, rows * layer->out_elements, up, y);
}

static void glu_free(struct layer *layer)
{
    struct glu *glu = layer->state;
    if (!glu)
        return;
    projection_close(&glu->gate);
    projection_close(&glu->up);
}

const struct layer_op op_glu = {
    .name = "glu", .format = 2, .build = glu_build, .forward = glu_forward, .free = glu_free};

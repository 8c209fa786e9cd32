/* glu: y = activation(x Wg^T + bg) * (x Wu^T + bu) over the last axis; gate.weight and up.weight
 * [out, in], biases if the tensors are there (Shazeer 2020, "GLU Variants Improve Transformer"). */
#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/layers/projection.h"
#include "core/memory.h"

struct glu {
    struct projection gate, up;
    size_t vectors; /* per row: the product of the axes before the last */
    size_t up_place;
    int activation; /* of GATES */
};

/* y = activation(y) * up: one loop per activation, without a branch inside. */
typedef void gate_up(size_t count, const float *restrict up, float *restrict y);

#define GATE_UP(name, activation)                                                                  \
    static void name##_up(size_t count, const float *restrict up, float *restrict y)               \
    {                                                                                              \
        for (size_t i = 0; i < count; i++)                                                         \
            y[i] = activation(y[i]) * up[i];                                                       \
    }

GATE_UP(silu, silu)
GATE_UP(gelu, gelu_erf)
GATE_UP(gelu_tanh, gelu_tanh)
GATE_UP(sigmoid, sigmoid)
GATE_UP(relu, relu)

static const char *const NAMES[] = {"silu", "gelu", "gelu_tanh", "sigmoid", "relu", NULL};
static gate_up *const GATES[] = {silu_up, gelu_up, gelu_tanh_up, sigmoid_up, relu_up};

static int glu_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    struct glu *glu = layer->state = xcalloc(1, sizeof *glu);
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "glu needs at least one axis");
    struct moed_shape out = layer->in;
    size_t *last = &out.dims[out.rank - 1];
    if (config_choice(node, "activation", NAMES, 0, &glu->activation, err) != 0 ||
        projection_build(&glu->gate, scope, "gate.weight", 0, *last, err) != 0 ||
        projection_build_bias(&glu->gate, scope, "gate.bias", err) != 0 ||
        projection_build(&glu->up, scope, "up.weight", glu->gate.gemm.n, *last, err) != 0 ||
        projection_build_bias(&glu->up, scope, "up.bias", err) != 0)
        return -1;
    glu->vectors = layer->in_elements / *last;
    *last = glu->gate.gemm.n;
    layer->cost.macs = 2 * layer->in_elements * *last;
    if (layer_set_out(layer, node, &out, err) != 0)
        return -1;
    glu->up_place = plan_floats(&layer->plan, layer->out_elements);
    return 0;
}

static void glu_forward(const struct layer *layer, const struct run *run, size_t rows,
                        const float *x, float *y)
{
    const struct glu *glu = layer->state;
    float *up = run_floats(run, glu->up_place, rows);
    projection_forward(&glu->gate, rows * glu->vectors, x, y);
    projection_forward(&glu->up, rows * glu->vectors, x, up);
    GATES[glu->activation](rows * layer->out_elements, up, y);
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

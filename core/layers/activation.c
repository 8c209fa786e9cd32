/* Element-wise functions and softmax. All work in place. */
#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/memory.h"

static int elementwise_build(struct layer *layer, const struct scope *scope,
                             struct config_node *node, struct error *err)
{
    (void)scope;
    return layer_set_out(layer, node, &layer->in, err);
}

/* One function per element, the loop written once. */
#define ELEMENTWISE(op, expression)                                                                \
    VECTORIZED static void op##_forward(const struct layer *layer, const struct run *run,          \
                                        size_t rows, const float *x, float *y)                     \
    {                                                                                              \
        (void)run;                                                                                 \
        const size_t count = rows * layer->in_elements;                                            \
        for (size_t i = 0; i < count; i++) {                                                       \
            const float v = x[i];                                                                  \
            y[i] = (expression);                                                                   \
        }                                                                                          \
    }                                                                                              \
    const struct layer_op op_##op = {                                                              \
        .name = #op, .in_place = true, .build = elementwise_build, .forward = op##_forward}

ELEMENTWISE(relu, relu(v));
ELEMENTWISE(silu, silu(v));
ELEMENTWISE(tanh, tanhf(v));
ELEMENTWISE(sigmoid, sigmoid(v));
ELEMENTWISE(cube, v *v *v);

struct gelu {
    int approximate; /* 0: by erf, 1: by tanh */
};

static int gelu_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                      struct error *err)
{
    static const char *const names[] = {"none", "tanh", NULL};
    struct gelu *gelu = layer->state = xcalloc(1, sizeof *gelu);
    if (config_choice(node, "approximate", names, 0, &gelu->approximate, err) != 0)
        return -1;
    return elementwise_build(layer, scope, node, err);
}

static void gelu_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    (void)run;
    const struct gelu *gelu = layer->state;
    const size_t count = rows * layer->in_elements;
    for (size_t i = 0; i < count; i++)
        y[i] = gelu->approximate ? gelu_tanh(x[i]) : gelu_erf(x[i]);
}

struct scale {
    float value;
};

static int scale_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                       struct error *err)
{
    struct scale *scale = layer->state = xcalloc(1, sizeof *scale);
    double value;
    if (config_real(node, "value", NULL, &value, err) != 0)
        return -1;
    scale->value = (float)value;
    return elementwise_build(layer, scope, node, err);
}

VECTORIZED static void scale_forward(const struct layer *layer, const struct run *run, size_t rows,
                                     const float *x, float *y)
{
    (void)run;
    const struct scale *scale = layer->state;
    const size_t count = rows * layer->in_elements;
    for (size_t i = 0; i < count; i++)
        y[i] = x[i] * scale->value;
}

static int softmax_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                         struct error *err)
{
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "softmax needs at least one axis");
    return elementwise_build(layer, scope, node, err);
}

static void softmax_forward(const struct layer *layer, const struct run *run, size_t rows,
                            const float *x, float *y)
{
    (void)run;
    const size_t width = layer->in.dims[layer->in.rank - 1];
    const size_t count = rows * layer->in_elements / width;
    for (size_t i = 0; i < count; i++)
        softmax(x + i * width, width, y + i * width, NULL);
}

const struct layer_op op_gelu = {
    .name = "gelu", .in_place = true, .build = gelu_build, .forward = gelu_forward};
const struct layer_op op_scale = {
    .name = "scale", .in_place = true, .build = scale_build, .forward = scale_forward};
const struct layer_op op_softmax = {
    .name = "softmax", .in_place = true, .build = softmax_build, .forward = softmax_forward};

/* Element-wise functions, softmax and log_softmax. All work in place. */
#include <float.h>

#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/layers/weights.h"
#include "core/memory.h"

static int elementwise_build(struct layer *layer, const struct scope *scope,
                             struct config_node *node, struct error *err)
{
    (void)scope;
    return layer_set_out(layer, node, &layer->in, err);
}

/* One function per element, the loop written once. */
#define ELEMENTWISE_SINCE(since, op, expression)                                                   \
    VECTORIZED static void op##_forward(const struct layer *layer, const struct run *run,          \
                                        size_t rows, const float *x, float *y)                     \
    {                                                                                              \
        (void)run;                                                                                 \
        size_t count = rows * layer->in_elements;                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            float v = x[i];                                                                        \
            y[i] = (expression);                                                                   \
        }                                                                                          \
    }                                                                                              \
    const struct layer_op op_##op = {.name = #op,                                                  \
                                     .format = since,                                              \
                                     .padding = PADDING_KEPT,                                      \
                                     .in_place = true,                                             \
                                     .build = elementwise_build,                                   \
                                     .forward = op##_forward}
#define ELEMENTWISE(op, expression) ELEMENTWISE_SINCE(1, op, expression)

ELEMENTWISE(relu, relu(v));
ELEMENTWISE(silu, silu(v));
ELEMENTWISE(tanh, tanh_of(v));
ELEMENTWISE(sigmoid, sigmoid(v));
ELEMENTWISE(cube, v *v *v);
ELEMENTWISE_SINCE(3, relu2, relu(v) * relu(v));
ELEMENTWISE_SINCE(3, relu6, clamp(v, 0.0f, 6.0f));
ELEMENTWISE_SINCE(3, mish, v *tanh_of(softplus(v)));
ELEMENTWISE_SINCE(3, hardswish, v *hardsigmoid(v));
ELEMENTWISE_SINCE(3, hardsigmoid, hardsigmoid(v));
ELEMENTWISE_SINCE(3, exp, exp_of(v));
ELEMENTWISE_SINCE(3, log, log_of(v));
ELEMENTWISE_SINCE(3, sqrt, sqrtf(v));

/* ---- functions of numbers in the config ---- */

/* One or two, whose meaning is the op's. */
struct curve {
    float a, b;
};

static int read_number(struct config_node *node, const char *key, double otherwise, float *value,
                       struct error *err)
{
    double number;
    if (config_real(node, key, &otherwise, &number, err) != 0)
        return -1;
    *value = (float)number;
    return 0;
}

static int leaky_relu_build(struct layer *layer, const struct scope *scope,
                            struct config_node *node, struct error *err)
{
    struct curve *curve = layer->state = xcalloc(1, sizeof *curve);
    if (read_number(node, "slope", 0.01, &curve->a, err) != 0)
        return -1;
    return elementwise_build(layer, scope, node, err);
}

static int elu_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    struct curve *curve = layer->state = xcalloc(1, sizeof *curve);
    if (read_number(node, "alpha", 1, &curve->a, err) != 0)
        return -1;
    return elementwise_build(layer, scope, node, err);
}

static int softplus_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                          struct error *err)
{
    struct curve *curve = layer->state = xcalloc(1, sizeof *curve);
    if (read_number(node, "beta", 1, &curve->a, err) != 0 ||
        read_number(node, "threshold", 20, &curve->b, err) != 0)
        return -1;
    if (!(curve->a > 0))
        return config_error(node, "beta", err, "expected a number above 0");
    return elementwise_build(layer, scope, node, err);
}

static int clamp_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                       struct error *err)
{
    struct curve *curve = layer->state = xcalloc(1, sizeof *curve);
    bool bounded = config_has(node, "min");
    bounded |= config_has(node, "max");
    if (!bounded)
        return config_error(node, NULL, err, "clamp needs \"min\" or \"max\"");
    if (read_number(node, "min", -(double)FLT_MAX, &curve->a, err) != 0 ||
        read_number(node, "max", (double)FLT_MAX, &curve->b, err) != 0)
        return -1;
    curve->a = config_has(node, "min") ? curve->a : -INFINITY;
    curve->b = config_has(node, "max") ? curve->b : INFINITY;
    if (curve->a > curve->b)
        return config_error(node, "min", err, "is larger than \"max\"");
    return elementwise_build(layer, scope, node, err);
}

#define CURVE(op, expression)                                                                      \
    VECTORIZED static void op##_forward(const struct layer *layer, const struct run *run,          \
                                        size_t rows, const float *x, float *y)                     \
    {                                                                                              \
        (void)run;                                                                                 \
        const struct curve *curve = layer->state;                                                  \
        float a = curve->a, b = curve->b;                                                          \
        (void)b;                                                                                   \
        size_t count = rows * layer->in_elements;                                                  \
        for (size_t i = 0; i < count; i++) {                                                       \
            float v = x[i];                                                                        \
            y[i] = (expression);                                                                   \
        }                                                                                          \
    }                                                                                              \
    const struct layer_op op_##op = {.name = #op,                                                  \
                                     .padding = PADDING_KEPT,                                      \
                                     .format = 3,                                                  \
                                     .in_place = true,                                             \
                                     .build = op##_build,                                          \
                                     .forward = op##_forward}

/* Both sides are computed before one is taken, so that loops over them are vectorized. */
static inline float elu(float v, float alpha)
{
    float below = alpha * exp_less_one(v > 0 ? 0 : v);
    return v > 0 ? v : below;
}

static inline float scaled_softplus(float v, float beta, float threshold)
{
    float scaled = beta * v, soft = softplus(scaled) / beta;
    return scaled > threshold ? v : soft;
}

CURVE(leaky_relu, v < 0 ? a * v : v);
CURVE(elu, elu(v, a));
CURVE(softplus, scaled_softplus(v, a, b));
CURVE(clamp, clamp(v, a, b));

/* prelu: a slope for negative numbers, learned for each entry of the first axis or for all. */
static int prelu_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                       struct error *err)
{
    struct array *slopes = layer->state = xcalloc(1, sizeof *slopes);
    const struct tensor *weight = tensor_peek(scope, "weight");
    struct moed_shape shape = {1, {1}};
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "prelu needs at least one axis");
    if (!weight || weight->elements != 1)
        shape.dims[0] = layer->in.dims[0];
    if (array_build(slopes, scope, "weight", &shape, err) != 0)
        return -1;
    return elementwise_build(layer, scope, node, err);
}

VECTORIZED static void prelu_forward(const struct layer *layer, const struct run *run, size_t rows,
                                     const float *x, float *y)
{
    (void)run;
    const struct array *slopes = layer->state;
    size_t channels = slopes->count, plane = layer->in_elements / channels;
    for (size_t i = 0; i < rows * channels; i++, x += plane, y += plane) {
        float slope = slopes->values[i % channels];
        for (size_t j = 0; j < plane; j++)
            y[j] = x[j] < 0 ? slope * x[j] : x[j];
    }
}

static void prelu_free(struct layer *layer)
{
    if (layer->state)
        array_close(layer->state);
}

const struct layer_op op_prelu = {.name = "prelu",
                                  .padding = PADDING_KEPT,
                                  .format = 3,
                                  .in_place = true,
                                  .build = prelu_build,
                                  .forward = prelu_forward,
                                  .free = prelu_free};

/* ---- gelu, scale ---- */

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

VECTORIZED static void by_erf(size_t count, const float *x, float *y)
{
    for (size_t i = 0; i < count; i++)
        y[i] = gelu_erf(x[i]);
}

VECTORIZED static void by_tanh(size_t count, const float *x, float *y)
{
    for (size_t i = 0; i < count; i++)
        y[i] = gelu_tanh(x[i]);
}

static void gelu_forward(const struct layer *layer, const struct run *run, size_t rows,
                         const float *x, float *y)
{
    (void)run;
    const struct gelu *gelu = layer->state;
    (gelu->approximate ? by_tanh : by_erf)(rows * layer->in_elements, x, y);
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
    size_t count = rows * layer->in_elements;
    for (size_t i = 0; i < count; i++)
        y[i] = x[i] * scale->value;
}

/* ---- softmax, log_softmax ---- */

static int softmax_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                         struct error *err)
{
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "%s needs at least one axis", layer->op->name);
    return elementwise_build(layer, scope, node, err);
}

static void softmax_forward(const struct layer *layer, const struct run *run, size_t rows,
                            const float *x, float *y)
{
    (void)run;
    size_t width = layer->in.dims[layer->in.rank - 1];
    size_t count = rows * layer->in_elements / width;
    for (size_t i = 0; i < count; i++)
        softmax(x + i * width, width, y + i * width, NULL);
}

static void log_softmax_forward(const struct layer *layer, const struct run *run, size_t rows,
                                const float *x, float *y)
{
    (void)run;
    size_t width = layer->in.dims[layer->in.rank - 1];
    size_t count = rows * layer->in_elements / width;
    for (size_t i = 0; i < count; i++)
        log_softmax(x + i * width, width, y + i * width);
}

const struct layer_op op_gelu = {.name = "gelu",
                                 .padding = PADDING_KEPT,
                                 .in_place = true,
                                 .build = gelu_build,
                                 .forward = gelu_forward};
const struct layer_op op_scale = {.name = "scale",
                                  .padding = PADDING_KEPT,
                                  .in_place = true,
                                  .build = scale_build,
                                  .forward = scale_forward};
const struct layer_op op_softmax = {.name = "softmax",
                                    .padding = PADDING_LAST_AXIS,
                                    .in_place = true,
                                    .build = softmax_build,
                                    .forward = softmax_forward};
const struct layer_op op_log_softmax = {.name = "log_softmax",
                                        .padding = PADDING_LAST_AXIS,
                                        .format = 3,
                                        .in_place = true,
                                        .build = softmax_build,
                                        .forward = log_softmax_forward};

/* batch_norm (inference form), layer_norm, rms_norm. */
#include <math.h>
#include <stdlib.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/layers/weights.h"
#include "core/memory.h"

/* batch_norm over [channels, ...]: y = (x - running_mean) / sqrt(running_var + eps) * weight +
 * bias, folded at load into one multiply-add per element. */
struct batch_norm {
    float *scale, *shift; /* [channels] */
};

static int read_eps(struct config_node *node, double *eps, struct error *err)
{
    const double otherwise = 1e-5;
    if (config_real(node, "eps", &otherwise, eps, err) != 0)
        return -1;
    if (*eps < 0)
        return config_error(node, "eps", err, "expected a number of at least 0");
    return 0;
}

static int fold(struct batch_norm *norm, const struct array parts[4], size_t channels, double eps,
                struct error *err)
{
    if (!(norm->scale = calloc_checked(channels, sizeof *norm->scale, err)) ||
        !(norm->shift = calloc_checked(channels, sizeof *norm->shift, err)))
        return -1;
    const float *weight = parts[0].values, *bias = parts[1].values;
    for (size_t i = 0; i < channels; i++) {
        double scale = (weight ? weight[i] : 1.0) / sqrt((double)parts[3].values[i] + eps);
        norm->scale[i] = (float)scale;
        norm->shift[i] = (float)((bias ? bias[i] : 0.0) - parts[2].values[i] * scale);
    }
    return 0;
}

static int batch_norm_build(struct layer *layer, const struct scope *scope,
                            struct config_node *node, struct error *err)
{
    static const char *const suffix[4] = {"weight", "bias", "running_mean", "running_var"};
    struct batch_norm *norm = layer->state = xcalloc(1, sizeof *norm);
    struct array parts[4] = {{0}};
    double eps;
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "batch_norm needs at least one axis");
    const size_t channels = layer->in.dims[0];
    struct moed_shape shape = {.rank = 1, .dims = {channels}};
    int result = read_eps(node, &eps, err);
    for (size_t i = 0; i < 4 && result == 0; i++)
        result =
            (i < 2 ? array_build_optional : array_build)(&parts[i], scope, suffix[i], &shape, err);
    for (size_t i = 0; i < channels && result == 0; i++)
        if (!(parts[3].values[i] + eps > 0))
            result = tensor_error(tensor_peek(scope, suffix[3]), err, ERROR_INVALID,
                                  ": entry %zu is not positive", i);
    if (result == 0)
        result = fold(norm, parts, channels, eps, err);
    for (size_t i = 0; i < 4; i++)
        array_close(&parts[i]);
    layer->cost.macs = layer->in_elements;
    return result == 0 ? layer_set_out(layer, node, &layer->in, err) : -1;
}

VECTORIZED static void batch_norm_forward(const struct layer *layer, const struct run *run,
                                          size_t rows, const float *x, float *y)
{
    (void)run;
    const struct batch_norm *norm = layer->state;
    const size_t channels = layer->in.dims[0], plane = layer->in_elements / channels;
    for (size_t row = 0; row < rows; row++)
        for (size_t channel = 0; channel < channels; channel++, x += plane, y += plane) {
            const float scale = norm->scale[channel], shift = norm->shift[channel];
            for (size_t i = 0; i < plane; i++)
                y[i] = x[i] * scale + shift;
        }
}

static void batch_norm_free(struct layer *layer)
{
    struct batch_norm *norm = layer->state;
    if (!norm)
        return;
    free(norm->scale);
    free(norm->shift);
}

/* layer_norm and rms_norm over the trailing axes that `weight` has. */
struct trailing_norm {
    struct array weight, bias;
    size_t width; /* normalised elements */
    float eps;
    bool center; /* layer_norm subtracts the mean */
};

/* The weight's shape says how many trailing axes are normalised; it must equal those axes. */
static int match_trailing(const struct layer *layer, const struct scope *scope,
                          struct config_node *node, struct moed_shape *shape, struct error *err)
{
    const struct tensor *weight = tensor_peek(scope, "weight");
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "%s needs at least one axis", layer->op->name);
    shape->rank = weight && weight->rank <= layer->in.rank && weight->rank > 0 ? weight->rank : 1;
    for (size_t i = 0; i < shape->rank; i++)
        shape->dims[i] = layer->in.dims[layer->in.rank - shape->rank + i];
    return 0;
}

static int trailing_norm_build(struct layer *layer, const struct scope *scope,
                               struct config_node *node, bool center, struct error *err)
{
    struct trailing_norm *norm = layer->state = xcalloc(1, sizeof *norm);
    struct moed_shape shape;
    double eps;
    if (read_eps(node, &eps, err) != 0 || match_trailing(layer, scope, node, &shape, err) != 0 ||
        array_build(&norm->weight, scope, "weight", &shape, err) != 0)
        return -1;
    if (center && array_build_optional(&norm->bias, scope, "bias", &shape, err) != 0)
        return -1;
    norm->eps = (float)eps;
    norm->center = center;
    norm->width = norm->weight.count;
    layer->cost.macs = 2 * layer->in_elements;
    return layer_set_out(layer, node, &layer->in, err);
}

static int layer_norm_build(struct layer *layer, const struct scope *scope,
                            struct config_node *node, struct error *err)
{
    return trailing_norm_build(layer, scope, node, true, err);
}

static int rms_norm_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                          struct error *err)
{
    return trailing_norm_build(layer, scope, node, false, err);
}

/* Sums in double: thousands of squares of one sign lose digits in f32. */
static void normalize(const struct trailing_norm *norm, const float *x, float *y)
{
    const size_t width = norm->width;
    double mean = 0, square = 0;
    for (size_t i = 0; norm->center && i < width; i++)
        mean += x[i];
    mean /= (double)width;
    for (size_t i = 0; i < width; i++)
        square += (x[i] - mean) * (x[i] - mean);
    const double inverse = 1.0 / sqrt(square / (double)width + norm->eps);
    const float *bias = norm->bias.values;
    for (size_t i = 0; i < width; i++)
        y[i] = (float)((x[i] - mean) * inverse) * norm->weight.values[i] + (bias ? bias[i] : 0.0f);
}

static void trailing_norm_forward(const struct layer *layer, const struct run *run, size_t rows,
                                  const float *x, float *y)
{
    (void)run;
    const struct trailing_norm *norm = layer->state;
    const size_t count = rows * layer->in_elements / norm->width;
    for (size_t i = 0; i < count; i++)
        normalize(norm, x + i * norm->width, y + i * norm->width);
}

static void trailing_norm_free(struct layer *layer)
{
    struct trailing_norm *norm = layer->state;
    if (!norm)
        return;
    array_close(&norm->weight);
    array_close(&norm->bias);
}

const struct layer_op op_batch_norm = {.name = "batch_norm",
                                       .in_place = true,
                                       .build = batch_norm_build,
                                       .forward = batch_norm_forward,
                                       .free = batch_norm_free};
const struct layer_op op_layer_norm = {.name = "layer_norm",
                                       .in_place = true,
                                       .build = layer_norm_build,
                                       .forward = trailing_norm_forward,
                                       .free = trailing_norm_free};
const struct layer_op op_rms_norm = {.name = "rms_norm",
                                     .in_place = true,
                                     .build = rms_norm_build,
                                     .forward = trailing_norm_forward,
                                     .free = trailing_norm_free};

/* batch_norm (inference form), layer_norm, rms_norm, group_norm, l2_normalize. */
#include <math.h>
#include <stdlib.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/layers/weights.h"
#include "core/memory.h"
#include "core/text.h"

/* batch_norm over [channels, ...]: y = (x - running_mean) / sqrt(running_var + eps) * weight +
 * bias, folded at load into one multiply-add per element. */
struct batch_norm {
    float *scale, *shift; /* [channels] */
};

static int read_eps(struct config_node *node, double *eps, struct error *err)
{
    double otherwise = 1e-5;
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
    size_t channels = layer->in.dims[0];
    struct moed_shape shape = {.rank = 1, .dims = {channels}};
    int result = read_eps(node, &eps, err);
    for (size_t i = 0; i < 4 && result == 0; i++)
        result =
            (i < 2 ? array_build_optional : array_build)(&parts[i], scope, suffix[i], &shape, err);
    for (size_t i = 0; i < channels && result == 0 && !scope->loading->headers_only; i++)
        if (!(parts[3].values[i] + eps > 0))
            result = tensor_error(tensor_peek(scope, suffix[3]), err, ERROR_INVALID,
                                  ": entry %zu is not positive", i);
    if (result == 0)
        result = fold(norm, parts, channels, eps, err);
    for (size_t i = 0; i < 4; i++)
        array_close(&parts[i]);
    layer->cost.macs = layer->in_elements;
    layer->cost.weight_bytes = layer->cost.shared_bytes = 2 * channels * sizeof(float);
    layer->cost.mapped_bytes = 0;
    return result == 0 ? layer_set_out(layer, node, &layer->in, err) : -1;
}

VECTORIZED static void batch_norm_forward(const struct layer *layer, const struct run *run,
                                          size_t rows, const float *x, float *y)
{
    (void)run;
    const struct batch_norm *norm = layer->state;
    size_t channels = layer->in.dims[0], plane = layer->in_elements / channels;
    for (size_t row = 0; row < rows; row++)
        for (size_t channel = 0; channel < channels; channel++, x += plane, y += plane) {
            float scale = norm->scale[channel], shift = norm->shift[channel];
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

/* What numbers are off a mean, in standard deviations. The mean is two floats: where it is large,
 * what is left of one that was rounded would be wrong. */
struct standard {
    float mean, rest, inverse;
};

static inline struct standard standard_of(double mean, double variance)
{
    const float rounded = (float)mean;
    return (struct standard){rounded, (float)(mean - (double)rounded),
                             (float)(1.0 / sqrt(variance))};
}

static inline float standardized(const struct standard *standard, float x)
{
    return (x - standard->mean - standard->rest) * standard->inverse;
}

/* layer_norm and rms_norm, over as many trailing axes as `weight` has. */
struct trailing_norm {
    struct array weight, bias;
    size_t width; /* number of normalised elements */
    float eps;
    bool center; /* layer_norm subtracts the mean */
};

/* The rank of the weight determines how many trailing axes are normalised; their sizes must
 * match. */
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
    if (scope->padded && shape.rank == layer->in.rank)
        return config_error(node, NULL, err, "%s of all axes would see padding", layer->op->name);
    layer->padded = scope->padded;
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

static inline void normalize(const struct trailing_norm *norm, const float *x, float *y)
{
    const size_t width = norm->width;
    const double mean = norm->center ? total_of(x, width) / (double)width : 0;
    const double variance = squares_of(x, mean, width) / (double)width;
    const struct standard standard = standard_of(mean, variance + norm->eps);
    const float *bias = norm->bias.values;
    for (size_t i = 0; i < width; i++)
        y[i] = standardized(&standard, x[i]) * norm->weight.values[i] + (bias ? bias[i] : 0.0f);
}

VECTORIZED static void trailing_norm_forward(const struct layer *layer, const struct run *run,
                                             size_t rows, const float *x, float *y)
{
    (void)run;
    const struct trailing_norm *norm = layer->state;
    size_t count = rows * layer->in_elements / norm->width;
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

/* group_norm over [channels, ...]: every group of neighbouring channels has its own mean and
 * variance; weight and bias are for each channel. */
struct group_norm {
    struct array weight, bias;
    size_t groups;
    double eps;
};

static int group_norm_build(struct layer *layer, const struct scope *scope,
                            struct config_node *node, struct error *err)
{
    struct group_norm *norm = layer->state = xcalloc(1, sizeof *norm);
    int64_t groups;
    if (layer->in.rank == 0)
        return config_error(node, NULL, err, "group_norm needs at least one axis");
    size_t channels = layer->in.dims[0];
    const struct moed_shape shape = {.rank = 1, .dims = {channels}};
    if (read_eps(node, &norm->eps, err) != 0 ||
        config_integer(node, "groups", CONFIG_REQUIRED, within(1, (int64_t)channels), &groups,
                       err) != 0)
        return -1;
    norm->groups = (size_t)groups;
    if (channels % norm->groups != 0)
        return config_error(node, "groups", err, "%zu channel%s cannot make %zu equal groups",
                            channels, text_s(channels), norm->groups);
    if (array_build_optional(&norm->weight, scope, "weight", &shape, err) != 0 ||
        array_build_optional(&norm->bias, scope, "bias", &shape, err) != 0)
        return -1;
    layer->cost.macs = 2 * layer->in_elements;
    return layer_set_out(layer, node, &layer->in, err);
}

/* One group, whose first channel is `channel`. */
VECTORIZED static void normalize_group(const struct group_norm *norm, size_t channel,
                                       size_t channels, size_t plane, const float *x, float *y)
{
    size_t count = channels * plane;
    const double mean = total_of(x, count) / (double)count;
    const double variance = squares_of(x, mean, count) / (double)count;
    const struct standard standard = standard_of(mean, variance + norm->eps);
    for (size_t c = channel; c < channel + channels; c++, x += plane, y += plane) {
        float weight = norm->weight.values ? norm->weight.values[c] : 1.0f;
        float bias = norm->bias.values ? norm->bias.values[c] : 0.0f;
        for (size_t i = 0; i < plane; i++)
            y[i] = standardized(&standard, x[i]) * weight + bias;
    }
}

static void group_norm_forward(const struct layer *layer, const struct run *run, size_t rows,
                               const float *x, float *y)
{
    (void)run;
    const struct group_norm *norm = layer->state;
    size_t channels = layer->in.dims[0] / norm->groups;
    size_t plane = layer->in_elements / layer->in.dims[0];
    for (size_t i = 0; i < rows * norm->groups; i++, x += channels * plane, y += channels * plane)
        normalize_group(norm, i % norm->groups * channels, channels, plane, x, y);
}

static void group_norm_free(struct layer *layer)
{
    struct group_norm *norm = layer->state;
    if (!norm)
        return;
    array_close(&norm->weight);
    array_close(&norm->bias);
}

/* l2_normalize: x / max(sqrt(sum x^2), eps) along one axis. A row is [outer, axis, inner]. */
struct l2_norm {
    size_t axis, inner;
    double eps;
};

static int l2_normalize_build(struct layer *layer, const struct scope *scope,
                              struct config_node *node, struct error *err)
{
    struct l2_norm *norm = layer->state = xcalloc(1, sizeof *norm);
    double otherwise = 1e-12;
    size_t at;
    if (layer_read_axis(layer, node, -1, &at, err) != 0 ||
        config_real(node, "eps", &otherwise, &norm->eps, err) != 0)
        return -1;
    if (!((float)norm->eps > 0))
        return config_error(node, "eps", err, "expected a number above 0 that f32 can hold");
    if (scope->padded && at == 0)
        return config_error(node, "axis", err, "the first axis ends in padding");
    layer->padded = scope->padded;
    norm->axis = layer->in.dims[at];
    norm->inner = 1;
    for (size_t i = at + 1; i < layer->in.rank; i++)
        norm->inner *= layer->in.dims[i];
    layer->cost.macs = 2 * layer->in_elements;
    return layer_set_out(layer, node, &layer->in, err);
}

/* What a vector is divided by. Of one with a NaN it is NaN, where fmax() would give eps. */
static inline float divisor(double square, double eps)
{
    const double root = sqrt(square);
    return (float)(root < eps ? eps : root);
}

/* Numbers that follow each other are one vector. */
static inline void normalize_line(const struct l2_norm *norm, const float *x, float *y)
{
    const float size = divisor(squares_of(x, 0, norm->axis), norm->eps);
    for (size_t i = 0; i < norm->axis; i++)
        y[i] = x[i] / size;
}

/* `count` neighbouring vectors at once, at most DOT_LANES, each with numbers `inner` apart. */
static inline void normalize_columns(const struct l2_norm *norm, size_t count, const float *x,
                                     float *y)
{
    double squares[DOT_LANES] = {0};
    float sizes[DOT_LANES];
    size_t slab = norm->axis * norm->inner;
    for (size_t j = 0; j < slab; j += norm->inner)
        for (size_t k = 0; k < count; k++)
            squares[k] += (double)x[j + k] * (double)x[j + k];
    for (size_t k = 0; k < count; k++)
        sizes[k] = divisor(squares[k], norm->eps);
    for (size_t j = 0; j < slab; j += norm->inner)
        for (size_t k = 0; k < count; k++)
            y[j + k] = x[j + k] / sizes[k];
}

VECTORIZED static void l2_normalize_forward(const struct layer *layer, const struct run *run,
                                            size_t rows, const float *x, float *y)
{
    (void)run;
    const struct l2_norm *norm = layer->state;
    size_t slab = norm->axis * norm->inner;
    for (size_t i = 0; i < rows * layer->in_elements / slab; i++, x += slab, y += slab) {
        if (norm->inner == 1)
            normalize_line(norm, x, y);
        else
            for (size_t k = 0; k < norm->inner; k += DOT_LANES)
                normalize_columns(norm, norm->inner - k < DOT_LANES ? norm->inner - k : DOT_LANES,
                                  x + k, y + k);
    }
}

const struct layer_op op_batch_norm = {.name = "batch_norm",
                                       .padding = PADDING_KEPT,
                                       .in_place = true,
                                       .build = batch_norm_build,
                                       .forward = batch_norm_forward,
                                       .free = batch_norm_free};
const struct layer_op op_layer_norm = {.name = "layer_norm",
                                       .padding = PADDING_OWN,
                                       .in_place = true,
                                       .build = layer_norm_build,
                                       .forward = trailing_norm_forward,
                                       .free = trailing_norm_free};
const struct layer_op op_rms_norm = {.name = "rms_norm",
                                     .padding = PADDING_OWN,
                                     .in_place = true,
                                     .build = rms_norm_build,
                                     .forward = trailing_norm_forward,
                                     .free = trailing_norm_free};
const struct layer_op op_group_norm = {.name = "group_norm",
                                       .format = 3,
                                       .in_place = true,
                                       .build = group_norm_build,
                                       .forward = group_norm_forward,
                                       .free = group_norm_free};
const struct layer_op op_l2_normalize = {.name = "l2_normalize",
                                         .padding = PADDING_OWN,
                                         .format = 3,
                                         .in_place = true,
                                         .build = l2_normalize_build,
                                         .forward = l2_normalize_forward};

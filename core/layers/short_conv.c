/* short_conv: a gated convolution over the last few positions of a sequence (LFM2).
 *
 *     [b | c | v] = Win x;  z = b * v;  y = Wout (c * sum_k w_k z of k positions ago) + biases
 *
 * A session keeps the z of the positions before, of each page the last [lines, size]: that of
 * position p of the page in line p modulo lines. So a page has what comes after it needs, and
 * others that begin with the same tokens may go on from it. Before the first position z is 0. */
#include <stdlib.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/layers/projection.h"
#include "core/memory.h"
#include "core/session.h"

struct short_conv {
    struct projection in, out;
    struct array weight, bias; /* [size, taps], the oldest position's first; [size] */
    size_t size, taps;
    size_t lines;        /* of a page */
    size_t parts, mixed; /* places */
};

static int build_weights(struct short_conv *conv, const struct scope *scope, struct error *err)
{
    const struct tensor *stored = tensor_peek(scope, "conv.weight");
    struct moed_shape weight = {2, {conv->size, 1}}, bias = {1, {conv->size}};
    if (stored && stored->rank == 2)
        weight.dims[1] = stored->dims[1];
    if (array_build(&conv->weight, scope, "conv.weight", &weight, err) != 0 ||
        array_build_optional(&conv->bias, scope, "conv.bias", &bias, err) != 0)
        return -1;
    conv->taps = weight.dims[1];
    if (conv->taps < 2)
        return tensor_error(stored, err, ERROR_INVALID, " has one tap, expected at least 2");
    return 0;
}

/* What a page keeps, shared out to its positions. */
static size_t position_bytes(const struct short_conv *conv)
{
    size_t numbers = conv->lines * conv->size;
    return (numbers + MOED_PAGE_POSITIONS - 1) / MOED_PAGE_POSITIONS * sizeof(float);
}

static int short_conv_build(struct layer *layer, const struct scope *scope,
                            struct config_node *node, struct error *err)
{
    struct short_conv *conv = layer->state = xcalloc(1, sizeof *conv);
    size_t size = conv->size = layer->in_elements;
    if (layer->in.rank != 1)
        return config_error(node, NULL, err, "short_conv works on rows of [size]");
    if (scope_check_sequence(scope, node, err) != 0 ||
        layer_set_out(layer, node, &layer->in, err) != 0 ||
        projection_build(&conv->in, scope, "in_proj.weight", 3 * size, size, err) != 0 ||
        projection_build_bias(&conv->in, scope, "in_proj.bias", err) != 0 ||
        build_weights(conv, scope, err) != 0 ||
        projection_build(&conv->out, scope, "out_proj.weight", size, size, err) != 0 ||
        projection_build_bias(&conv->out, scope, "out_proj.bias", err) != 0)
        return -1;
    conv->lines = conv->taps < MOED_PAGE_POSITIONS ? conv->taps : MOED_PAGE_POSITIONS;
    layer->memory.per_position = position_bytes(conv);
    layer->memory.window = conv->taps;
    layer->cost.macs = 4 * size * size + size * conv->taps;
    conv->parts = plan_floats(&layer->plan, 3 * size);
    conv->mixed = plan_floats(&layer->plan, size);
    return 0;
}

/* The z of a position. */
static float *kept_at(const struct short_conv *conv, const struct layer *layer,
                      const struct moed_session *session, size_t position)
{
    float *page = session_page(session, layer, position / MOED_PAGE_POSITIONS);
    return page + position % MOED_PAGE_POSITIONS % conv->lines * conv->size;
}

VECTORIZED static void add_tap(const struct short_conv *conv, size_t tap, const float *old,
                               float *y)
{
    const float *weight = conv->weight.values + tap;
    for (size_t i = 0; i < conv->size; i++)
        y[i] += weight[i * conv->taps] * old[i];
}

/* One row: parts [3, size]; y: [size]. */
VECTORIZED static void mix(const struct short_conv *conv, const struct layer *layer,
                           const struct moed_session *session, size_t position, const float *parts,
                           float *y)
{
    size_t size = conv->size, lines = conv->taps - 1;
    const float *gate = parts, *open = parts + size, *value = parts + 2 * size;
    const float *weight = conv->weight.values, *bias = conv->bias.values;
    float *line = kept_at(conv, layer, session, position);
    for (size_t i = 0; i < size; i++)
        y[i] = bias ? bias[i] : 0.0f;
    for (size_t tap = lines > position ? lines - position : 0; tap < lines; tap++)
        add_tap(conv, tap, kept_at(conv, layer, session, position + tap - lines), y);
    for (size_t i = 0; i < size; i++) {
        line[i] = gate[i] * value[i];
        y[i] = (y[i] + weight[i * conv->taps + lines] * line[i]) * open[i];
    }
}

static void short_conv_forward(const struct layer *layer, const struct run *run, size_t rows,
                               const float *x, float *y)
{
    const struct short_conv *conv = layer->state;
    float *parts = run_floats(run, conv->parts, rows), *mixed = run_floats(run, conv->mixed, rows);
    size_t row = 0;
    projection_share(&conv->in, run->team, rows, x, parts);
    for (size_t i = 0; i < run->span_count; i++) {
        const struct moed_span *span = &run->spans[i];
        for (size_t j = 0; j < span->rows; j++, row++)
            mix(conv, layer, span->session, span->position + j, parts + row * 3 * conv->size,
                mixed + row * conv->size);
    }
    projection_share(&conv->out, run->team, rows, mixed, y);
}

static void short_conv_free(struct layer *layer)
{
    struct short_conv *conv = layer->state;
    if (!conv)
        return;
    projection_close(&conv->in);
    projection_close(&conv->out);
    array_close(&conv->weight);
    array_close(&conv->bias);
}

const struct layer_op op_short_conv = {.name = "short_conv",
                                       .format = 3,
                                       .build = short_conv_build,
                                       .forward = short_conv_forward,
                                       .free = short_conv_free};

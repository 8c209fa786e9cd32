/* attention: multi-head self-attention over the positions of one row.
 *
 *     q, k, v = x Win^T + bin, cut in three;  q, k normalised, then turned by their positions;
 *     per head  softmax(q k^T * scale + bias) v;  y = heads side by side, Wout^T + bout
 *
 * Tensors as torch.nn.MultiheadAttention names them. Rows never see each other. What a query sees
 * is a run of keys, [from, end): all, those up to its own position, those near it. */
#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/layers/projection.h"
#include "core/layers/rotary.h"
#include "core/memory.h"

struct attention {
    struct projection in, out;
    struct rotary rotary;
    struct array q_norm, k_norm; /* [width of what is normalised]; values NULL: it is not */
    struct array sinks;          /* [heads] */
    struct array bias;           /* [heads, positions, positions] */
    size_t positions, size, heads, kv_heads, head_dim;
    size_t window; /* 0: none */
    bool causal;
    float root, scale; /* scores are divided by root, or, if it is 0, multiplied by scale */
    float eps;
    size_t qkv, context; /* places */
};

/* Numbers of one position's queries, keys and values together. */
static size_t projected(const struct attention *attention)
{
    return (attention->heads + 2 * attention->kv_heads) * attention->head_dim;
}

static int read_heads(struct attention *attention, struct config_node *node, struct error *err)
{
    const int64_t most = MAX_ROW_ELEMENTS;
    size_t size = attention->size;
    int64_t heads, kv_heads, head_dim;
    if (config_integer(node, "heads", CONFIG_REQUIRED,
                       within(1, config_has(node, "head_dim") ? most : (int64_t)size), &heads,
                       err) != 0 ||
        config_integer(node, "kv_heads", heads, within(1, heads), &kv_heads, err) != 0)
        return -1;
    if (!config_has(node, "head_dim") && size % (size_t)heads != 0)
        return config_error(node, "heads", err, "%lld does not divide the size %zu",
                            (long long)heads, size);
    if (config_integer(node, "head_dim", (int64_t)size / heads, within(1, most / (3 * heads)),
                       &head_dim, err) != 0)
        return -1;
    if (heads % kv_heads != 0)
        return config_error(node, "kv_heads", err, "%lld does not divide %lld heads",
                            (long long)kv_heads, (long long)heads);
    attention->heads = (size_t)heads;
    attention->kv_heads = (size_t)kv_heads;
    attention->head_dim = (size_t)head_dim;
    return 0;
}

/* Before anything is allocated for so many positions. */
static int check_size(const struct attention *attention, const struct config_node *node,
                      struct error *err)
{
    if (attention->positions <= MAX_ROW_ELEMENTS / projected(attention))
        return 0;
    return config_error(node, NULL, err, "queries, keys and values exceed %d elements a row",
                        MAX_ROW_ELEMENTS);
}

static int read_scores(struct attention *attention, struct config_node *node, struct error *err)
{
    int64_t window;
    double scale = 0;
    if (config_flag(node, "causal", false, &attention->causal, err) != 0 ||
        config_integer(node, "window", 0, within(1, MAX_ROW_ELEMENTS), &window, err) != 0)
        return -1;
    attention->window = (size_t)window;
    attention->root = config_has(node, "scale") ? 0 : sqrtf((float)attention->head_dim);
    if (attention->root == 0 && config_real(node, "scale", NULL, &scale, err) != 0)
        return -1;
    attention->scale = (float)scale;
    return rotary_build(&attention->rotary, node, attention->head_dim, attention->positions, err);
}

/* "qk_norm": queries and keys divided by their root mean square, of each head or of all together.
 */
static int build_norms(struct attention *attention, const struct scope *scope,
                       struct config_node *node, struct error *err)
{
    enum { NONE, HEAD, ALL };
    static const char *const names[] = {"none", "head", "all", NULL};
    static const double otherwise = 1e-6;
    int kind;
    double eps;
    if (config_choice(node, "qk_norm", names, NONE, &kind, err) != 0)
        return -1;
    if (kind == NONE)
        return 0;
    if (config_real(node, "eps", &otherwise, &eps, err) != 0)
        return -1;
    if (eps < 0)
        return config_error(node, "eps", err, "expected a number of at least 0");
    attention->eps = (float)eps;
    struct moed_shape q = {1, {attention->head_dim}}, k = q;
    q.dims[0] *= kind == ALL ? attention->heads : 1;
    k.dims[0] *= kind == ALL ? attention->kv_heads : 1;
    if (array_build(&attention->q_norm, scope, "q_norm.weight", &q, err) != 0)
        return -1;
    return array_build(&attention->k_norm, scope, "k_norm.weight", &k, err);
}

static int build_tensors(struct attention *attention, const struct scope *scope, struct error *err)
{
    const struct moed_shape sinks = {1, {attention->heads}};
    const struct moed_shape bias = {3,
                                    {attention->heads, attention->positions, attention->positions}};
    size_t size = attention->size, inner = attention->heads * attention->head_dim;
    if (projection_build(&attention->in, scope, "in_proj_weight", projected(attention), size,
                         err) != 0 ||
        projection_build_bias(&attention->in, scope, "in_proj_bias", err) != 0 ||
        projection_build(&attention->out, scope, "out_proj.weight", size, inner, err) != 0 ||
        projection_build_bias(&attention->out, scope, "out_proj.bias", err) != 0)
        return -1;
    if (scope->loading->format < 3)
        return 0;
    if (array_build_optional(&attention->sinks, scope, "sinks", &sinks, err) != 0)
        return -1;
    return array_build_optional(&attention->bias, scope, "bias", &bias, err);
}

static int format_3_keys(const struct scope *scope, struct config_node *node, struct error *err)
{
    static const char *const keys[] = {"kv_heads", "head_dim", "causal", "window",
                                       "scale",    "rotary",   "qk_norm"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (format_key(scope, node, keys[i], 3, err) != 0)
            return -1;
    return 0;
}

static int attention_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                           struct error *err)
{
    struct attention *attention = layer->state = xcalloc(1, sizeof *attention);
    if (layer->in.rank != 2)
        return config_error(node, NULL, err, "attention works on rows of [positions, size]");
    attention->positions = layer->in.dims[0];
    attention->size = layer->in.dims[1];
    if (format_3_keys(scope, node, err) != 0 || read_heads(attention, node, err) != 0 ||
        check_size(attention, node, err) != 0 || read_scores(attention, node, err) != 0 ||
        build_norms(attention, scope, node, err) != 0 ||
        layer_set_out(layer, node, &layer->in, err) != 0 ||
        build_tensors(attention, scope, err) != 0)
        return -1;
    size_t positions = attention->positions, inner = attention->heads * attention->head_dim;
    size_t qkv = projected(attention);
    layer->cost.macs = positions * (attention->size * (qkv + inner) + 2 * positions * inner);
    attention->qkv = plan_floats(&layer->plan, positions * qkv);
    attention->context = plan_floats(&layer->plan, positions * inner);
    plan_workspace(&layer->plan, positions);
    return 0;
}

/* ---- queries and keys --------------------------------------------------------------------- */

static void normalize(const struct array *weight, float eps, size_t count, float *x)
{
    size_t width = weight->count;
    for (size_t i = 0; weight->values && i < count; i += width, x += width) {
        double square = 0;
        for (size_t j = 0; j < width; j++)
            square += (double)x[j] * (double)x[j];
        const double inverse = 1.0 / sqrt(square / (double)width + (double)eps);
        for (size_t j = 0; j < width; j++)
            x[j] = (float)(x[j] * inverse) * weight->values[j];
    }
}

/* Queries and keys of one position, as scores are made of them. */
static void prepare(const struct attention *attention, size_t position, float *qkv)
{
    size_t width = attention->head_dim, queries = attention->heads * width;
    normalize(&attention->q_norm, attention->eps, queries, qkv);
    normalize(&attention->k_norm, attention->eps, attention->kv_heads * width, qkv + queries);
    for (size_t head = 0; head < attention->heads + attention->kv_heads; head++)
        rotary_turn(&attention->rotary, position, qkv + head * width);
}

/* ---- scores ------------------------------------------------------------------------------- */

/* One query of one head, and the keys that it sees. */
struct query {
    const float *q, *keys, *values; /* of the first key; one position's are `pitch` apart */
    size_t pitch, count;
    const float *bias; /* [count] or NULL */
    const float *sink; /* NULL: none */
};

/* A sink takes its share of the softmax and has no value. */
static void softmax_with_sink(float sink, float *scores, size_t count)
{
    const float max = fmaxf(max_of(scores, count), sink);
    float sum = expf(sink - max);
    for (size_t i = 0; i < count; i++) {
        scores[i] = expf(scores[i] - max);
        sum += scores[i];
    }
    for (size_t i = 0; i < count; i++)
        scores[i] /= sum;
}

static void attend(const struct attention *attention, const struct query *query, float *scores,
                   float *context)
{
    size_t width = attention->head_dim;
    for (size_t i = 0; i < query->count; i++) {
        const float product = dot(query->q, query->keys + i * query->pitch, width);
        scores[i] = attention->root != 0 ? product / attention->root : product * attention->scale;
        scores[i] += query->bias ? query->bias[i] : 0.0f;
    }
    if (query->sink)
        softmax_with_sink(*query->sink, scores, query->count);
    else
        softmax(scores, query->count, scores, NULL);
    for (size_t i = 0; i < width; i++)
        context[i] = 0;
    for (size_t i = 0; i < query->count; i++)
        add_scaled(context, scores[i], query->values + i * query->pitch, width);
}

/* The keys that the query at `position` sees, of `count`: [*from, *end). */
static void visible(const struct attention *attention, size_t position, size_t count, size_t *from,
                    size_t *end)
{
    size_t window = attention->window;
    *from = window && position >= window ? position - window + 1 : 0;
    *end = attention->causal ? position + 1 : window ? position + window : count;
    *end = *end < count ? *end : count;
}

/* qkv: one row's, from its first position on, of which `count` are no padding. */
static void attend_row(const struct attention *attention, size_t count, const float *qkv,
                       float *scores, float *context)
{
    size_t width = attention->head_dim, pitch = projected(attention);
    size_t positions = attention->positions, group = attention->heads / attention->kv_heads;
    const float *keys = qkv + attention->heads * width;
    const float *values = keys + attention->kv_heads * width;
    for (size_t position = 0; position < positions; position++) {
        size_t from, end;
        if (position >= count) {
            memset(context, 0, (positions - position) * attention->heads * width * sizeof *context);
            break;
        }
        visible(attention, position, count, &from, &end);
        for (size_t head = 0; head < attention->heads; head++, context += width) {
            size_t at = from * pitch + head / group * width;
            const float *bias = attention->bias.values;
            const struct query query = {
                .q = qkv + position * pitch + head * width,
                .keys = keys + at,
                .values = values + at,
                .pitch = pitch,
                .count = end - from,
                .bias = bias ? bias + (head * positions + position) * positions + from : NULL,
                .sink = attention->sinks.values ? &attention->sinks.values[head] : NULL};
            attend(attention, &query, scores, context);
        }
    }
}

static void attention_forward(const struct layer *layer, const struct run *run, size_t rows,
                              const float *x, float *y)
{
    const struct attention *attention = layer->state;
    size_t positions = attention->positions, pitch = projected(attention);
    size_t inner = attention->heads * attention->head_dim;
    float *qkv = run_floats(run, attention->qkv, rows);
    float *context = run_floats(run, attention->context, rows);
    projection_forward(&attention->in, rows * positions, x, qkv);
    if (attention->rotary.pairs || attention->q_norm.values)
        for (size_t i = 0; i < rows * positions; i++)
            prepare(attention, i % positions, qkv + i * pitch);
    for (size_t row = 0; row < rows; row++)
        attend_row(attention, layer->padded_in ? run_length(run, row) : positions,
                   qkv + row * positions * pitch, run_workspace(run),
                   context + row * positions * inner);
    projection_forward(&attention->out, rows * positions, context, y);
}

static void attention_free(struct layer *layer)
{
    struct attention *attention = layer->state;
    if (!attention)
        return;
    projection_close(&attention->in);
    projection_close(&attention->out);
    rotary_close(&attention->rotary);
    array_close(&attention->q_norm);
    array_close(&attention->k_norm);
    array_close(&attention->sinks);
    array_close(&attention->bias);
}

const struct layer_op op_attention = {.name = "attention",
                                      .padding = PADDING_KEPT,
                                      .format = 2,
                                      .build = attention_build,
                                      .forward = attention_forward,
                                      .free = attention_free};

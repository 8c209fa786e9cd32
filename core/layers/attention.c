/* attention: multi-head self-attention over the positions of one row, or of a sequence of rows.
 *
 *     q, k, v = x Win^T + bin, cut in three;  q, k normalised, then turned by their positions;
 *     per head  softmax(q k^T * scale + bias) v;  y = heads side by side, Wout^T + bout
 *
 * Tensors as torch.nn.MultiheadAttention names them. What a query sees is a run of keys, [from,
 * end): all, those up to its own position, those near it. */
#include "core/layers/attention.h"

#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"
#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/memory.h"
#include "core/text.h"

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
        return config_error(node, "kv_heads", err, "%lld does not divide %lld head%s",
                            (long long)kv_heads, (long long)heads, text_s((uint64_t)heads));
    attention->heads = (size_t)heads;
    attention->kv_heads = (size_t)kv_heads;
    attention->head_dim = (size_t)head_dim;
    return 0;
}

/* Before anything is allocated for so many positions. */
static int check_size(const struct attention *attention, const struct config_node *node,
                      struct error *err)
{
    if (attention->positions <= MAX_ROW_ELEMENTS / attention_projected(attention))
        return 0;
    return config_error(node, NULL, err, "queries, keys and values exceed %d elements a row",
                        MAX_ROW_ELEMENTS);
}

static int read_scores(struct attention *attention, const struct scope *scope,
                       struct config_node *node, struct error *err)
{
    static const double none = 0;
    int64_t window;
    double scale = 1 / sqrt((double)attention->head_dim), clip;
    if (config_flag(node, "causal", attention->over_sequence, &attention->causal, err) != 0 ||
        config_flag(node, "keep", attention->over_sequence && attention->causal, &attention->kept,
                    err) != 0 ||
        config_integer(node, "window", 0, within(1, MAX_ROW_ELEMENTS), &window, err) != 0)
        return -1;
    if (attention->kept && !(attention->over_sequence && attention->causal))
        return config_error(node, "keep", err, "only causal attention over a sequence can keep");
    attention->window = (size_t)window;
    if (config_real(node, "scale", &scale, &scale, err) != 0)
        return -1;
    attention->scale = (float)scale;
    if (config_real(node, "clip", &none, &clip, err) != 0)
        return -1;
    if (clip < 0)
        return config_error(node, "clip", err, "expected a number of at least 0");
    attention->clip = (float)clip;
    return rotary_build(&attention->rotary, scope, node, attention->head_dim,
                        attention->over_sequence ? 0 : attention->positions, err);
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
    if (config_choice(node, "qk_norm", names, NONE, &kind, err) != 0 ||
        config_flag(node, "qk_norm_late", false, &attention->normalizes_late, err) != 0)
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
    struct scope own = *scope;
    own.sensitive = true; /* few of an MoE model's weights */
    const struct moed_shape sinks = {1, {attention->heads}};
    size_t positions = attention->positions;
    const struct moed_shape bias = {3, {attention->heads, positions, positions}};
    size_t size = attention->size, inner = attention->heads * attention->head_dim;
    if (projection_build(&attention->in, &own, "in_proj_weight", attention_projected(attention),
                         size, err) != 0 ||
        projection_build_bias(&attention->in, &own, "in_proj_bias", err) != 0 ||
        projection_build(&attention->out, &own, "out_proj.weight", size, inner, err) != 0 ||
        projection_build_bias(&attention->out, &own, "out_proj.bias", err) != 0)
        return -1;
    if (scope->loading->format < 3)
        return 0;
    if (array_build_optional(&attention->sinks, scope, "sinks", &sinks, err) != 0)
        return -1;
    if (attention->over_sequence) /* a tensor "bias" is one that no layer uses */
        return 0;
    return array_build_optional(&attention->bias, scope, "bias", &bias, err);
}

static const char *const FORMAT_3_KEYS[] = {"kv_heads",     "head_dim", "causal",  "window",
                                            "scale",        "rotary",   "qk_norm", "over",
                                            "qk_norm_late", "clip",     "keep",    NULL};

/* "over": what a position is. */
static int read_over(struct attention *attention, const struct layer *layer,
                     const struct scope *scope, struct config_node *node, struct error *err)
{
    static const char *const names[] = {"row", "sequence", NULL};
    int over;
    if (config_choice(node, "over", names, 0, &over, err) != 0)
        return -1;
    attention->over_sequence = over == 1;
    if (layer->in.rank != (attention->over_sequence ? 1 : 2))
        return config_error(node, NULL, err, "attention works on rows of %s",
                            attention->over_sequence ? "[size] over a sequence"
                                                     : "[positions, size]");
    attention->positions = attention->over_sequence ? 1 : layer->in.dims[0];
    attention->size = layer->in.dims[layer->in.rank - 1];
    attention->half = !scope->loading->kv_f32;
    return attention->over_sequence ? scope_check_sequence(scope, node, err) : 0;
}

static int attention_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                           struct error *err)
{
    struct attention *attention = layer->state = xcalloc(1, sizeof *attention);
    if (config_since(node, 3, scope->loading->format, FORMAT_3_KEYS, err) != 0 ||
        read_over(attention, layer, scope, node, err) != 0 ||
        read_heads(attention, node, err) != 0 || check_size(attention, node, err) != 0 ||
        read_scores(attention, scope, node, err) != 0 ||
        build_norms(attention, scope, node, err) != 0 ||
        layer_set_out(layer, node, &layer->in, err) != 0 ||
        build_tensors(attention, scope, err) != 0)
        return -1;
    scope->loading->sees_ahead |= attention->over_sequence && !attention->kept;
    if (attention->over_sequence)
        attention_sequence_plan(attention, layer);
    else
        attention_rows_plan(attention, layer);
    return 0;
}

VECTORIZED void attention_normalize(const struct array *weight, float eps, size_t count, float *x)
{
    size_t width = weight->count;
    for (size_t i = 0; weight->values && i < count; i += width, x += width) {
        const double square = squares_of(x, 0, width);
        const double inverse = 1.0 / sqrt(square / (double)width + (double)eps);
        for (size_t j = 0; j < width; j++)
            x[j] = (float)(x[j] * inverse) * weight->values[j];
    }
}

static void normalize_both(const struct attention *attention, float *queries)
{
    size_t width = attention->head_dim, count = attention->heads * width;
    attention_normalize(&attention->q_norm, attention->eps, count, queries);
    attention_normalize(&attention->k_norm, attention->eps, attention->kv_heads * width,
                        queries + count);
}

void attention_before_turn(const struct attention *attention, float *qkv)
{
    const float clip = attention->clip;
    if (!attention->normalizes_late)
        normalize_both(attention, qkv);
    for (size_t i = 0; clip > 0 && i < attention_projected(attention); i++)
        qkv[i] = clamp(qkv[i], -clip, clip);
}

void attention_after_turn(const struct attention *attention, float *qkv)
{
    if (attention->normalizes_late)
        normalize_both(attention, qkv);
}

static void attention_forward(const struct layer *layer, const struct run *run, size_t rows,
                              const float *x, float *y)
{
    const struct attention *attention = layer->state;
    (attention->over_sequence ? attention_sequence_forward : attention_rows_forward)(layer, run,
                                                                                     rows, x, y);
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

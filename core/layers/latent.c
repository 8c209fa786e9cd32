/* latent_attention: attention over a sequence whose keys and values are made of one short vector a
 * position, which is all that is kept of it (DeepSeek-V2's MLA).
 *
 *     q_h = [a_h | r_h] = (Wq x)_h;  [c | s] = Wkv x;  c normalised;  r_h, s turned
 *     key of head h  [Wk_h c | s];  value  Wv_h c;  y = Wout of all heads' softmax(q k^T scale) v
 *
 * Since (Wk_h c) . a_h = c . (Wk_h^T a_h), every head's query is brought to the latent space, where
 * all of them attend over one key, [c | s], and one value, [c | 0]: attention with one head of keys
 * and values (core/layers/attention_sequence.c). Wv_h is applied to what comes out. The same is
 * done for one row and for many, so that chunks change no bit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/layers/attention.h"
#include "core/layers/ops.h"
#include "core/memory.h"

struct latent {
    struct attention attention; /* of heads in the latent space; its `out` is Wout */
    struct projection query_down, query, kv_down;
    struct projection *key_up, *value_up; /* [heads] Wk_h^T [latent, plain], Wv_h [value, latent] */
    struct array query_norm, kv_norm;
    struct rotary rotary;
    size_t plain, turned; /* numbers of a head's query: not turned, turned */
    size_t latent, value; /* numbers of c; of a head's value */
    size_t query_latent;  /* 0: queries are made of x itself */
    float eps;
    size_t narrow, queries, kept, gathered, raised, joined; /* places */
};

static int read_size(struct config_node *node, const char *key, bool optional, size_t *value,
                     struct error *err)
{
    int64_t number;
    if (config_integer(node, key, optional ? 0 : CONFIG_REQUIRED, within(1, 1 << 16), &number,
                       err) != 0)
        return -1;
    *value = (size_t)number;
    return 0;
}

static int read_keys(struct latent *latent, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    static const double otherwise = 1e-6;
    struct attention *attention = &latent->attention;
    double eps, scale;
    if (read_size(node, "heads", false, &attention->heads, err) != 0 ||
        read_size(node, "plain", false, &latent->plain, err) != 0 ||
        read_size(node, "turned", false, &latent->turned, err) != 0 ||
        read_size(node, "latent", false, &latent->latent, err) != 0 ||
        read_size(node, "value", false, &latent->value, err) != 0 ||
        read_size(node, "query_latent", true, &latent->query_latent, err) != 0 ||
        config_real(node, "eps", &otherwise, &eps, err) != 0 ||
        config_real(node, "scale", NULL, &scale, err) != 0)
        return -1;
    if (eps < 0)
        return config_error(node, "eps", err, "expected a number of at least 0");
    latent->eps = (float)eps;
    attention->scale = (float)scale;
    attention->kv_heads = 1;
    attention->head_dim = latent->latent + latent->turned;
    if (attention->heads > MAX_ROW_ELEMENTS / (attention->head_dim + latent->plain + latent->value))
        return config_error(node, "heads", err, "queries exceed %d elements a row",
                            MAX_ROW_ELEMENTS);
    return rotary_build(&latent->rotary, scope, node, latent->turned, 0, err);
}

static int build_norm(struct array *norm, const struct scope *scope, const char *suffix,
                      size_t width, struct error *err)
{
    const struct moed_shape shape = {1, {width}};
    return array_build(norm, scope, suffix, &shape, err);
}

static int build_queries(struct latent *latent, const struct scope *scope, struct error *err)
{
    size_t size = latent->attention.size, narrow = latent->query_latent;
    size_t queries = latent->attention.heads * (latent->plain + latent->turned);
    if (narrow &&
        (projection_build(&latent->query_down, scope, "q_down.weight", narrow, size, err) != 0 ||
         projection_build_bias(&latent->query_down, scope, "q_down.bias", err) != 0 ||
         build_norm(&latent->query_norm, scope, "q_norm.weight", narrow, err) != 0))
        return -1;
    return projection_build(&latent->query, scope, "q.weight", queries, narrow ? narrow : size,
                            err);
}

static int build_heads(struct latent *latent, const struct scope *scope, struct error *err)
{
    size_t heads = latent->attention.heads;
    latent->key_up = xcalloc(heads, sizeof *latent->key_up);
    latent->value_up = xcalloc(heads, sizeof *latent->value_up);
    for (size_t h = 0; h < heads; h++) {
        char key[48], value[48];
        snprintf(key, sizeof key, "key_up.%zu.weight", h);
        snprintf(value, sizeof value, "value_up.%zu.weight", h);
        if (projection_build(&latent->key_up[h], scope, key, latent->latent, latent->plain, err) !=
                0 ||
            projection_build(&latent->value_up[h], scope, value, latent->value, latent->latent,
                             err) != 0)
            return -1;
    }
    return 0;
}

static int build_tensors(struct latent *latent, const struct scope *scope, struct error *err)
{
    struct attention *attention = &latent->attention;
    struct scope own = *scope;
    own.sensitive = true; /* few of an MoE model's weights */
    size_t size = attention->size;
    if (build_queries(latent, &own, err) != 0 ||
        projection_build(&latent->kv_down, &own, "kv_down.weight", attention->head_dim, size,
                         err) != 0 ||
        projection_build_bias(&latent->kv_down, &own, "kv_down.bias", err) != 0 ||
        build_norm(&latent->kv_norm, &own, "kv_norm.weight", latent->latent, err) != 0 ||
        build_heads(latent, &own, err) != 0 ||
        projection_build(&attention->out, &own, "out_proj.weight", size,
                         attention->heads * latent->value, err) != 0)
        return -1;
    return projection_build_bias(&attention->out, &own, "out_proj.bias", err);
}

static void plan(struct latent *latent, struct layer *layer)
{
    struct attention *attention = &latent->attention;
    size_t heads = attention->heads, size = attention->size;
    size_t queries = heads * (latent->plain + latent->turned);
    attention_sequence_plan(attention, layer);
    latent->narrow = plan_floats(&layer->plan, latent->query_latent);
    latent->queries = plan_floats(&layer->plan, queries);
    latent->kept = plan_floats(&layer->plan, attention->head_dim);
    latent->gathered = plan_floats(&layer->plan, heads * max_size(latent->plain, latent->value));
    latent->raised = plan_floats(&layer->plan, heads * latent->latent);
    latent->joined = plan_floats(&layer->plan, heads * latent->value);
    layer->cost.macs =
        latent->query_latent ? latent->query_latent * (size + queries) : size * queries;
    layer->cost.macs += size * (attention->head_dim + heads * latent->value);
    layer->cost.macs += heads * latent->latent * (latent->plain + latent->value);
}

static int latent_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    struct latent *latent = layer->state = xcalloc(1, sizeof *latent);
    struct attention *attention = &latent->attention;
    if (layer->in.rank != 1)
        return config_error(node, NULL, err, "latent_attention works on rows of [size]");
    if (scope_check_sequence(scope, node, err) != 0)
        return -1;
    attention->over_sequence = attention->causal = attention->kept = true;
    attention->half = !scope->loading->kv_f32;
    attention->positions = 1;
    attention->size = layer->in.dims[0];
    if (read_keys(latent, scope, node, err) != 0 ||
        layer_set_out(layer, node, &layer->in, err) != 0 || build_tensors(latent, scope, err) != 0)
        return -1;
    plan(latent, layer);
    return 0;
}

/* ---- running ------------------------------------------------------------------------------ */

/* One forward of the layer. */
struct forward {
    const struct latent *latent;
    size_t rows;
    float *queries;           /* [rows, heads, plain + turned] */
    float *kept;              /* [rows, latent + turned] */
    float *gathered, *raised; /* [heads, rows, plain or value], [heads, rows, latent] */
    float *qkv, *context;     /* as attention has them */
    float *joined;            /* [rows, heads, value] */
};

/* The one key and value of a row, and the turned part of its queries. angles: [2, pairs]. */
static void prepare(const struct forward *all, size_t row, size_t position, float *angles)
{
    const struct latent *latent = all->latent;
    const struct attention *attention = &latent->attention;
    size_t width = attention->head_dim, step = latent->plain + latent->turned;
    float *sine = angles + latent->rotary.pairs, *kept = all->kept + row * width;
    float *query = all->queries + row * attention->heads * step + latent->plain;
    float *key = all->qkv + row * attention_projected(attention) + attention->heads * width;
    if (latent->rotary.pairs)
        rotary_angles(&latent->rotary, position, angles, sine);
    attention_normalize(&latent->kv_norm, latent->eps, latent->latent, kept);
    rotary_turn_by(&latent->rotary, angles, sine, kept + latent->latent);
    for (size_t head = 0; head < attention->heads; head++, query += step)
        rotary_turn_by(&latent->rotary, angles, sine, query);
    memcpy(key, kept, width * sizeof *key);
    memcpy(key + width, kept, latent->latent * sizeof *key);
    memset(key + width + latent->latent, 0, latent->turned * sizeof *key);
}

static void prepare_all(const struct forward *all, const struct run *run)
{
    size_t row = 0;
    for (size_t i = 0; i < run->span_count; i++)
        for (size_t j = 0; j < run->spans[i].rows; j++)
            prepare(all, row++, run->spans[i].position + j, run_workspace(run));
}

/* One head's queries to the latent space. */
static void raise_queries(void *context, size_t head, unsigned worker)
{
    const struct forward *all = context;
    const struct latent *latent = all->latent;
    const struct attention *attention = &latent->attention;
    size_t plain = latent->plain, wide = latent->latent, step = plain + latent->turned;
    float *gathered = all->gathered + head * all->rows * plain;
    float *raised = all->raised + head * all->rows * wide;
    const float *query = all->queries + head * step;
    float *to = all->qkv + head * attention->head_dim;
    (void)worker;
    for (size_t row = 0; row < all->rows; row++)
        memcpy(gathered + row * plain, query + row * attention->heads * step,
               plain * sizeof *gathered);
    projection_forward(&latent->key_up[head], all->rows, gathered, raised);
    for (size_t row = 0; row < all->rows; row++, to += attention_projected(attention)) {
        memcpy(to, raised + row * wide, wide * sizeof *to);
        memcpy(to + wide, query + row * attention->heads * step + plain,
               latent->turned * sizeof *to);
    }
}

/* What one head found, from the latent space. */
static void lower_values(void *context, size_t head, unsigned worker)
{
    const struct forward *all = context;
    const struct latent *latent = all->latent;
    const struct attention *attention = &latent->attention;
    size_t value = latent->value, wide = latent->latent;
    float *raised = all->raised + head * all->rows * wide;
    float *lowered = all->gathered + head * all->rows * value;
    (void)worker;
    for (size_t row = 0; row < all->rows; row++)
        memcpy(raised + row * wide,
               all->context + (row * attention->heads + head) * attention->head_dim,
               wide * sizeof *raised);
    projection_forward(&latent->value_up[head], all->rows, raised, lowered);
    for (size_t row = 0; row < all->rows; row++)
        memcpy(all->joined + (row * attention->heads + head) * value, lowered + row * value,
               value * sizeof *lowered);
}

static void make_queries(const struct latent *latent, const struct run *run, size_t rows,
                         const float *x, float *queries)
{
    float *narrow = run_floats(run, latent->narrow, rows);
    if (latent->query_latent) {
        projection_share(&latent->query_down, run->team, rows, x, narrow);
        attention_normalize(&latent->query_norm, latent->eps, rows * latent->query_latent, narrow);
    }
    projection_share(&latent->query, run->team, rows, latent->query_latent ? narrow : x, queries);
}

static void latent_forward(const struct layer *layer, const struct run *run, size_t rows,
                           const float *x, float *y)
{
    const struct latent *latent = layer->state;
    const struct attention *attention = &latent->attention;
    struct forward all = {.latent = latent,
                          .rows = rows,
                          .queries = run_floats(run, latent->queries, rows),
                          .kept = run_floats(run, latent->kept, rows),
                          .gathered = run_floats(run, latent->gathered, rows),
                          .raised = run_floats(run, latent->raised, rows),
                          .qkv = run_floats(run, attention->qkv, rows),
                          .context = run_floats(run, attention->context, rows),
                          .joined = run_floats(run, latent->joined, rows)};
    size_t heads = attention->heads;
    struct moed_team *team = team_for(run->team, rows * heads * latent->latent * latent->plain);
    make_queries(latent, run, rows, x, all.queries);
    projection_share(&latent->kv_down, run->team, rows, x, all.kept);
    prepare_all(&all, run);
    team_run(team, heads, raise_queries, &all);
    attention_sequence_attend(attention, layer, run, rows);
    team_run(team, heads, lower_values, &all);
    projection_share(&attention->out, run->team, rows, all.joined, y);
}

static void latent_free(struct layer *layer)
{
    struct latent *latent = layer->state;
    if (!latent)
        return;
    for (size_t h = 0; latent->value_up && h < latent->attention.heads; h++) {
        projection_close(&latent->key_up[h]);
        projection_close(&latent->value_up[h]);
    }
    free(latent->key_up);
    free(latent->value_up);
    projection_close(&latent->query_down);
    projection_close(&latent->query);
    projection_close(&latent->kv_down);
    projection_close(&latent->attention.out);
    array_close(&latent->query_norm);
    array_close(&latent->kv_norm);
    rotary_close(&latent->rotary);
}

const struct layer_op op_latent_attention = {.name = "latent_attention",
                                             .format = 3,
                                             .build = latent_build,
                                             .forward = latent_forward,
                                             .free = latent_free};

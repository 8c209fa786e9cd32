/* Small models with memory: attention over earlier positions, a MoE layer after it, a running
 * sum.
 *
 * Their two ops with memory are the test's own: this header brings its own op_find(), so that the
 * engine's table of ops stays what a checkpoint may name. Include it in one file of a program. */
#ifndef TEST_CAUSAL_TOY_H
#define TEST_CAUSAL_TOY_H

#include <math.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/session.h"
#include "support.h"

enum { TOKENS = 16, SIZE = 8, EXPERTS = 4, TOP_K = 2, GATES = 2, LONGEST = 40 };

/* ---- causal: attention of each row's query over all positions up to its own ---- */

/* A row is [query, key, value]; a position keeps [key, value]. */
static int causal_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    (void)scope;
    const struct moed_shape out = {1, {layer->in_elements / 3}};
    layer->memory.per_position = 2 * out.dims[0] * sizeof(float);
    return layer_set_out(layer, node, &out, err);
}

/* The key and value of a position. */
static float *kept_at(const struct layer *layer, const struct moed_session *session,
                      size_t position)
{
    float *page = session_page(session, layer, position / MOED_PAGE_POSITIONS);
    return page + position % MOED_PAGE_POSITIONS * 2 * layer->out_elements;
}

struct causal_job {
    const struct layer *layer;
    const struct moed_span *span;
    const float *x; /* of the span */
    float *y;
};

/* Computes the softmax in two passes, which needs no memory for scores. */
static void attend(void *context, size_t row, unsigned worker)
{
    (void)worker;
    const struct causal_job *job = context;
    const size_t size = job->layer->out_elements;
    const float *query = job->x + row * 3 * size;
    float *y = job->y + row * size, max = -INFINITY, sum = 0;
    const size_t end = job->span->position + row + 1;
    for (size_t at = 0; at < end; at++)
        max = fmaxf(max, dot(query, kept_at(job->layer, job->span->session, at), size));
    for (size_t i = 0; i < size; i++)
        y[i] = 0;
    for (size_t at = 0; at < end; at++) {
        const float *kept = kept_at(job->layer, job->span->session, at);
        const float p = expf(dot(query, kept, size) - max);
        sum += p;
        add_scaled(y, p, kept + size, size);
    }
    for (size_t i = 0; i < size; i++)
        y[i] /= sum;
}

static void causal_forward(const struct layer *layer, const struct run *run, size_t rows,
                           const float *x, float *y)
{
    const size_t size = layer->out_elements;
    size_t seen = 0;
    for (size_t i = 0; i < run->span_count; i++) {
        const struct moed_span *span = &run->spans[i];
        for (size_t row = 0; row < span->rows; row++)
            memcpy(kept_at(layer, span->session, span->position + row), x + row * 3 * size + size,
                   2 * size * sizeof *x);
        struct causal_job job = {layer, span, x, y};
        team_run(team_for(run->team, span->rows * size), span->rows, attend, &job);
        x += span->rows * 3 * size;
        y += span->rows * size;
        seen += span->rows;
    }
    ck_assert_uint_eq(seen, rows); /* a layer with memory sees whole spans */
}

static const struct layer_op op_causal = {
    .name = "causal", .build = causal_build, .forward = causal_forward};

/* ---- decay: y is x and half of the y before; a position keeps its y ---- */

static int decay_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                       struct error *err)
{
    (void)scope;
    layer->memory.per_position = layer->in_elements * sizeof(float);
    return layer_set_out(layer, node, &layer->in, err);
}

static float *y_at(const struct layer *layer, const struct moed_session *session, size_t position)
{
    float *page = session_page(session, layer, position / MOED_PAGE_POSITIONS);
    return page + position % MOED_PAGE_POSITIONS * layer->in_elements;
}

static void decay_forward(const struct layer *layer, const struct run *run, size_t rows,
                          const float *x, float *y)
{
    (void)rows;
    static const float nothing[SIZE];
    for (size_t i = 0; i < run->span_count; i++) {
        const struct moed_span *span = &run->spans[i];
        for (size_t at = span->position; at < span->position + span->rows; at++) {
            const float *before = at ? y_at(layer, span->session, at - 1) : nothing;
            for (size_t e = 0; e < layer->in_elements; e++)
                y[e] = before[e] / 2 + x[e];
            memcpy(y_at(layer, span->session, at), y, layer->in_elements * sizeof *y);
            x += layer->in_elements;
            y += layer->in_elements;
        }
    }
}

static const struct layer_op op_decay = {
    .name = "decay", .build = decay_build, .forward = decay_forward};

const struct layer_op *op_find(const char *name)
{
    static const struct layer_op *const ops[] = {&op_causal,   &op_decay,     &op_linear,
                                                 &op_moe,      &op_embedding, &op_flatten,
                                                 &op_residual, &op_relu};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(ops[i]->name, name) == 0)
            return ops[i];
    return NULL;
}

/* ---- models ---- */

#define TOKEN_INPUT                                                                                \
    "{'model_type':'moed','format_version':2,'inputs':[{'name':'token','shape':[1],"               \
    "'categories':16,'layers':[{'op':'embedding','name':'e'},{'op':'flatten'}]}],'layers':"
#define ATTENTION(name) "{'op':'linear','name':'" name "'},{'op':'causal'}"
#define MIXTURE(name)                                                                              \
    "{'op':'residual','layers':[{'op':'moe','name':'" name                                         \
    "','gate':{'layers':[{'op':'linear','name':'g'}],'top_k':2,'normalize':'sum'},"                \
    "'experts':{'count':4,'layers':[{'op':'linear','name':'fc'},{'op':'relu'}]}}]}"
#define RESIDUAL(layers) "{'op':'residual','layers':[" layers "]}"

static const char causal_config[] = TOKEN_INPUT "[" RESIDUAL(ATTENTION("a")) "," MIXTURE(
    "m") "," RESIDUAL(ATTENTION("b")) "," MIXTURE("n") ",{'op':'linear','name':'out'}]}";
static const char decay_config[] = TOKEN_INPUT
    "[" RESIDUAL(ATTENTION("a")) ",{'op':'decay'}," MIXTURE("m") ",{'op':'linear','name':'out'}]}";
static const char row_only_config[] = TOKEN_INPUT "[" MIXTURE("m") "]}";

struct weights {
    struct stored tensors[32];
    char names[32][48];
    size_t count;
};

static void add(struct weights *weights, const char *name, size_t rows, size_t columns)
{
    const size_t at = weights->count++;
    float *values = xmalloc(rows * columns * sizeof *values);
    uint32_t state = (uint32_t)(17 * at + 1);
    for (size_t i = 0; i < rows * columns; i++)
        values[i] = (float)(next_random(&state) % 2001) / 1000 - 1;
    snprintf(weights->names[at], sizeof weights->names[at], "%s.weight", name);
    weights->tensors[at] = (struct stored){
        .name = weights->names[at], .rank = 2, .dims = {rows, columns}, .values = values};
}

static void add_mixture(struct weights *weights, const char *name)
{
    char expert[32];
    snprintf(expert, sizeof expert, "%s.gate.g", name);
    add(weights, expert, EXPERTS, SIZE);
    for (int e = 0; e < EXPERTS; e++) {
        snprintf(expert, sizeof expert, "%s.experts.%d.fc", name, e);
        add(weights, expert, SIZE, SIZE);
    }
}

static struct moed_model *load(const char *config)
{
    struct weights weights = {.count = 0};
    add(&weights, "e", TOKENS, SIZE);
    if (strstr(config, "'name':'a'"))
        add(&weights, "a", 3 * SIZE, SIZE);
    add_mixture(&weights, "m");
    if (strstr(config, "'name':'b'")) {
        add(&weights, "b", 3 * SIZE, SIZE);
        add_mixture(&weights, "n");
    }
    if (strstr(config, "'name':'out'"))
        add(&weights, "out", TOKENS, SIZE);
    struct moed_model *model = load_model(config, weights.tensors, weights.count);
    for (size_t i = 0; i < weights.count; i++)
        free((float *)weights.tensors[i].values);
    return model;
}

#endif

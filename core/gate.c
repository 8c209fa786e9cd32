/* Which experts serve an item, and with what weight.
 *
 * score   softmax: p over all experts | sigmoid | none: the logit itself
 * select  the top_k largest score + select_bias; ties go to the lower index
 * weight  the selected score; normalize none | sum: divided by the selected sum | softmax: softmax
 *         over the selected logits; then times scale */
#include "moe.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int build_attention(struct gate *gate, struct layer *part, const struct build *build,
                           struct error *err)
{
    struct gemm *const gemms[] = {&gate->query, &gate->key};
    const char *const suffixes[] = {"query.weight", "key.weight"};
    const size_t h = gate->hidden;
    for (size_t i = 0; i < 2; i++) {
        struct tensor *weight = tensor_claim(part, build, suffixes[i], err);
        if (!weight || tensor_expect(weight, (size_t[]){h, h}, 2, err) != 0 ||
            gemm_init(gemms[i], weight, h, h, err) != 0)
            return -1;
        tensor_drop_pages(weight);
        part->parameters += weight->elements;
        part->weight_bytes += gemms[i]->bytes;
    }
    part->active_parameters += 2 * h * h;
    part->macs += (1 + gate->experts) * h * h + gate->experts * h;
    return 0;
}

/* Where the experts are cut in two: after the layer whose output is the key's source. */
static int find_split(struct gate *gate, struct config_node *node, struct experts *experts,
                      struct error *err)
{
    const char *key_layer;
    if (config_text(node, "key_layer", NULL, &key_layer, err) != 0)
        return -1;
    const struct chain *first = &experts->chains[0];
    size_t at = chain_find(first, key_layer);
    if (at == first->count)
        return config_error(node, "key_layer", err, "no expert layer is called '%.40s'", key_layer);
    for (size_t i = 0; i < experts->count; i++)
        if (experts->chains[i].layers[at].out_elements != gate->hidden)
            return config_error(
                node, "key_layer", err,
                "expert %zu's '%.40s' gives %zu numbers, the gate's hidden vector has %zu", i,
                key_layer, experts->chains[i].layers[at].out_elements, gate->hidden);
    experts->split = at + 1;
    experts->split_elements = gate->hidden;
    return 0;
}

static int read_options(struct gate *gate, struct config_node *node, struct error *err)
{
    static const char *const kinds[] = {"plain", "attentive", NULL};
    static const char *const scores[] = {"softmax", "sigmoid", "none", NULL};
    static const char *const normalizations[] = {"none", "sum", "softmax", NULL};
    const double one = 1.0;
    const int64_t count = (int64_t)gate->experts;
    int kind;
    int64_t top_k;
    double scale;
    if (config_choice(node, "kind", kinds, 0, &kind, err) != 0 ||
        config_choice(node, "score", scores, 0, &gate->score, err) != 0 ||
        config_choice(node, "normalize", normalizations, 0, &gate->normalize, err) != 0 ||
        config_integer(node, "top_k", count, 1, count, &top_k, err) != 0 ||
        config_real(node, "scale", &one, &scale, err) != 0)
        return -1;
    gate->attentive = kind == 1;
    gate->top_k = (size_t)top_k;
    gate->scale = (float)scale;
    return 0;
}

static int build_chain(struct gate *gate, struct layer *layer, struct build *build,
                       struct config_node *node, struct error *err)
{
    char text[SHAPE_TEXT_BYTES];
    struct build inner = *build;
    if (snprintf(inner.prefix, sizeof inner.prefix, "%s%s.gate.", build->prefix, layer->name) >=
        (int)sizeof inner.prefix)
        return config_error(node, NULL, err, "tensor names would be too long");
    inner.inside_moe = true;
    if (chain_build(&gate->chain, &inner, node, "layers", &layer->in, err) != 0)
        return -1;
    if (gate->chain.out.rank != 1 ||
        (!gate->attentive && gate->chain.out_elements != gate->experts))
        return config_error(node, "layers", err, "give %s; expected [%zu], one logit per expert",
                            shape_text(&gate->chain.out, text), gate->experts);
    gate->hidden = gate->chain.out_elements;
    return 0;
}

int gate_build(struct gate *gate, struct layer *layer, struct build *build,
               struct config_node *node, struct experts *experts, struct error *err)
{
    struct config_node own;
    struct layer part = {.op = layer->op, .name = "gate"};
    struct build inner = *build;
    gate->experts = experts->count;
    if (config_object(node, "gate", &own, err) != 0 || read_options(gate, &own, err) != 0 ||
        build_chain(gate, layer, build, &own, err) != 0)
        return -1;
    if (snprintf(inner.prefix, sizeof inner.prefix, "%s%s.", build->prefix, layer->name) >=
        (int)sizeof inner.prefix)
        return config_error(&own, NULL, err, "tensor names would be too long");
    if (array_build(&gate->select_bias, &part, &inner, "select_bias", &gate->experts, 1, false,
                    err) != 0)
        return -1;
    if (gate->attentive && (find_split(gate, &own, experts, err) != 0 ||
                            build_attention(gate, &part, &inner, err) != 0))
        return -1;
    layer->parameters += gate->chain.parameters + part.parameters;
    layer->active_parameters += gate->chain.active_parameters + part.active_parameters;
    layer->macs += gate->chain.macs + part.macs;
    layer->weight_bytes += gate->chain.weight_bytes + part.weight_bytes;
    return config_done(&own, err);
}

void gate_close(struct gate *gate)
{
    chain_close(&gate->chain);
    array_close(&gate->select_bias);
    gemm_close(&gate->query);
    gemm_close(&gate->key);
}

static float dot(const float *a, const float *b, size_t count)
{
    float sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Arena: g [items, h], query [items, h], keys [experts, items, h], then the chain's own. */
static void attentive_logits(const struct gate *gate, const struct run *run, size_t items,
                             const float *x, const float *hidden, float *logits)
{
    const size_t h = gate->hidden;
    float *g = run->arena, *query = g + items * h, *keys = query + items * h;
    struct run inner = *run;
    inner.arena = keys + gate->experts * items * h;
    chain_forward(&gate->chain, 0, gate->chain.count, &inner, items, x, g);
    gemm_rows(&gate->query, g, items, NULL, query);
    gemm_rows(&gate->key, hidden, gate->experts * items, NULL, keys);
    const float root = sqrtf((float)h);
    for (size_t item = 0; item < items; item++)
        for (size_t e = 0; e < gate->experts; e++)
            logits[item * gate->experts + e] =
                dot(query + item * h, keys + (e * items + item) * h, h) / root;
}

void gate_logits(const struct gate *gate, const struct run *run, size_t items, const float *x,
                 const float *hidden, float *logits)
{
    if (gate->attentive)
        attentive_logits(gate, run, items, x, hidden, logits);
    else
        chain_forward(&gate->chain, 0, gate->chain.count, run, items, x, logits);
}

static void clamp_finite(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i]))
            values[i] = -FLT_MAX;
        values[i] = fminf(fmaxf(values[i], -FLT_MAX), FLT_MAX);
    }
}

static void softmax_to(const float *logits, size_t count, float *p)
{
    float max = logits[0], sum = 0;
    for (size_t i = 1; i < count; i++)
        max = fmaxf(max, logits[i]);
    for (size_t i = 0; i < count; i++)
        sum += p[i] = expf(logits[i] - max);
    for (size_t i = 0; i < count; i++)
        p[i] /= sum;
}

/* Divides by the sum; equal shares when there is nothing to divide by. */
static void share_out(float *values, size_t count)
{
    float sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    for (size_t i = 0; i < count; i++)
        values[i] = sum != 0 ? values[i] / sum : 1.0f / (float)count;
}

/* Scores for the choice, and p, the gate's distribution over all experts, for the statistics. */
static void score(const struct gate *gate, const float *logits, float *scores, float *p)
{
    const size_t bytes = gate->experts * sizeof *p;
    switch (gate->score) {
    case SCORE_SOFTMAX:
        softmax_to(logits, gate->experts, p);
        memcpy(scores, p, bytes);
        break;
    case SCORE_SIGMOID:
        for (size_t i = 0; i < gate->experts; i++)
            scores[i] = 1.0f / (1.0f + expf(-logits[i]));
        memcpy(p, scores, bytes);
        share_out(p, gate->experts);
        break;
    case SCORE_NONE:
        softmax_to(logits, gate->experts, p);
        memcpy(scores, logits, bytes);
        break;
    }
}

/* Inserts every expert into a list of the best so far; only a strictly larger score moves ahead,
 * so ties keep the lower index first. O(experts * top_k), and top_k is small. */
static void select_top_k(const struct gate *gate, const float *scores, int32_t *chosen)
{
    const float *bias = gate->select_bias.values;
    for (size_t e = 0; e < gate->experts; e++) {
        const float value = scores[e] + (bias ? bias[e] : 0.0f);
        size_t at = e < gate->top_k ? e : gate->top_k;
        while (at > 0) {
            const int32_t other = chosen[at - 1];
            if (!(value > scores[other] + (bias ? bias[other] : 0.0f)))
                break;
            if (at < gate->top_k)
                chosen[at] = other;
            at--;
        }
        if (at < gate->top_k)
            chosen[at] = (int32_t)e;
    }
}

static void weigh(const struct gate *gate, const float *logits, const float *scores,
                  const int32_t *chosen, float *weights)
{
    const size_t k = gate->top_k;
    for (size_t slot = 0; slot < k; slot++)
        weights[slot] = (gate->normalize == NORMALIZE_SOFTMAX ? logits : scores)[chosen[slot]];
    if (gate->normalize == NORMALIZE_SUM)
        share_out(weights, k);
    if (gate->normalize == NORMALIZE_SOFTMAX)
        softmax_to(weights, k, weights);
    for (size_t slot = 0; slot < k; slot++)
        weights[slot] *= gate->scale;
    clamp_finite(weights, k);
}

static double entropy_bits(const float *p, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        if (p[i] > 0)
            sum -= (double)p[i] * (double)log2f(p[i]);
    return sum;
}

static void reset(struct routing *routing, size_t items)
{
    const size_t experts = routing->experts;
    routing->items = items;
    memset(routing->selected, 0, experts * sizeof *routing->selected);
    memset(routing->top1, 0, experts * sizeof *routing->top1);
    memset(routing->weight_sum, 0, experts * sizeof *routing->weight_sum);
    memset(routing->probability_sum, 0, experts * sizeof *routing->probability_sum);
    routing->entropy_sum = 0;
}

static void count_item(struct routing *routing, const int32_t *chosen, const float *weights)
{
    for (size_t slot = 0; slot < routing->top_k; slot++) {
        routing->selected[chosen[slot]]++;
        routing->weight_sum[chosen[slot]] += weights[slot];
    }
    routing->top1[chosen[0]]++;
    for (size_t e = 0; e < routing->experts; e++)
        routing->probability_sum[e] += routing->probability[e];
    routing->entropy_sum += entropy_bits(routing->probability, routing->experts);
}

void gate_select(const struct gate *gate, size_t items, float *logits, struct routing *routing)
{
    reset(routing, items);
    for (size_t item = 0; item < items; item++, logits += gate->experts) {
        int32_t *chosen = routing->expert + item * gate->top_k;
        float *weights = routing->weight + item * gate->top_k;
        clamp_finite(logits, gate->experts);
        score(gate, logits, routing->scores, routing->probability);
        select_top_k(gate, routing->scores, chosen);
        weigh(gate, logits, routing->scores, chosen, weights);
        count_item(routing, chosen, weights);
    }
}

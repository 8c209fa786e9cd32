/* Attention over the positions of one row. Rows never see each other. */
#include <string.h>

#include "core/dense/math.h"
#include "core/layers/attention.h"

void attention_rows_plan(struct attention *attention, struct layer *layer)
{
    size_t positions = attention->positions, inner = attention->heads * attention->head_dim;
    size_t qkv = attention_projected(attention);
    layer->cost.macs = positions * (attention->size * (qkv + inner) + 2 * positions * inner);
    attention->qkv = plan_floats(&layer->plan, positions * qkv);
    attention->context = plan_floats(&layer->plan, positions * inner);
    plan_workspace(&layer->plan, positions);
}

/* Queries and keys of one position, as scores are made of them. */
static void prepare(const struct attention *attention, size_t position, float *qkv)
{
    attention_before_turn(attention, qkv);
    for (size_t head = 0; head < attention->heads + attention->kv_heads; head++)
        rotary_turn(&attention->rotary, position, qkv + head * attention->head_dim);
    attention_after_turn(attention, qkv);
}

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

/* qkv: one row's, from its first position on, of which `count` are no padding. */
static void attend_row(const struct attention *attention, size_t count, const float *qkv,
                       float *scores, float *context)
{
    size_t width = attention->head_dim, pitch = attention_projected(attention);
    size_t positions = attention->positions, group = attention->heads / attention->kv_heads;
    const float *keys = qkv + attention->heads * width;
    const float *values = keys + attention->kv_heads * width;
    for (size_t position = 0; position < positions; position++) {
        size_t from, end;
        if (position >= count) {
            memset(context, 0, (positions - position) * attention->heads * width * sizeof *context);
            break;
        }
        attention_visible(attention, position, count, &from, &end);
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

void attention_rows_forward(const struct layer *layer, const struct run *run, size_t rows,
                            const float *x, float *y)
{
    const struct attention *attention = layer->state;
    size_t positions = attention->positions, pitch = attention_projected(attention);
    size_t inner = attention->heads * attention->head_dim;
    float *qkv = run_floats(run, attention->qkv, rows);
    float *context = run_floats(run, attention->context, rows);
    projection_forward(&attention->in, rows * positions, x, qkv);
    for (size_t i = 0; i < rows * positions; i++)
        prepare(attention, i % positions, qkv + i * pitch);
    for (size_t row = 0; row < rows; row++)
        attend_row(attention, layer->padded_in ? run_length(run, row) : positions,
                   qkv + row * positions * pitch, run_workspace(run),
                   context + row * positions * inner);
    projection_forward(&attention->out, rows * positions, context, y);
}

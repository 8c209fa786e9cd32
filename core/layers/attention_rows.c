/* Attention over the positions of one row, each a sequence of its own: rows never see each other.
 */
#include <string.h>

#include "core/layers/attention.h"

void attention_rows_plan(struct attention *attention, struct layer *layer)
{
    size_t positions = attention->positions, inner = attention->heads * attention->head_dim;
    size_t qkv = attention_projected(attention);
    layer->cost.macs = positions * (attention->size * (qkv + inner) + 2 * positions * inner);
    attention->qkv = plan_floats(&layer->plan, positions * qkv);
    attention->context = plan_floats(&layer->plan, positions * inner);
    plan_workspace(&layer->plan, attention_workspace(attention));
}

/* Queries and keys of one position, as scores are made of them. */
static void prepare(const struct attention *attention, size_t position, float *qkv)
{
    attention_before_turn(attention, qkv);
    for (size_t head = 0; head < attention->heads + attention->kv_heads; head++)
        rotary_turn(&attention->rotary, position, qkv + head * attention->head_dim);
    attention_after_turn(attention, qkv);
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
    for (size_t row = 0; row < rows; row++) {
        size_t count = layer->padded_in ? run_length(run, row) : positions;
        float *to = context + row * positions * inner;
        attention_attend(attention, run, count, qkv + row * positions * pitch, to);
        memset(to + count * inner, 0, (positions - count) * inner * sizeof *to);
    }
    projection_forward(&attention->out, rows * positions, context, y);
}

/* attention: multi-head self-attention over the positions of one row; every position attends to
 * all.
 *
 *     q, k, v = x Win^T + bin, cut in three;  per head  softmax(q k^T / sqrt(size / heads)) v;
 *     y = heads side by side, Wout^T + bout
 *
 * Tensors as torch.nn.MultiheadAttention names them. Rows never see each other. */
#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/layers/projection.h"
#include "core/memory.h"

struct attention {
    struct projection in, out;
    size_t positions, size, heads;
    size_t qkv, context; /* places */
};

static int attention_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                           struct error *err)
{
    struct attention *attention = layer->state = xcalloc(1, sizeof *attention);
    int64_t heads;
    if (layer->in.rank != 2)
        return config_error(node, NULL, err, "attention works on rows of [positions, size]");
    size_t positions = layer->in.dims[0], size = layer->in.dims[1];
    if (config_integer(node, "heads", CONFIG_REQUIRED, within(1, (int64_t)size), &heads, err) != 0)
        return -1;
    if (size % (size_t)heads != 0)
        return config_error(node, "heads", err, "%lld does not divide the size %zu",
                            (long long)heads, size);
    attention->positions = positions;
    attention->size = size;
    attention->heads = (size_t)heads;
    layer->cost.macs = layer->in_elements * (4 * size + 2 * positions);
    attention->qkv = plan_floats(&layer->plan, 3 * layer->in_elements);
    attention->context = plan_floats(&layer->plan, layer->in_elements);
    plan_workspace(&layer->plan, positions);
    if (layer_set_out(layer, node, &layer->in, err) != 0 ||
        projection_build(&attention->in, scope, "in_proj_weight", 3 * size, size, err) != 0 ||
        projection_build_bias(&attention->in, scope, "in_proj_bias", err) != 0 ||
        projection_build(&attention->out, scope, "out_proj.weight", size, size, err) != 0)
        return -1;
    return projection_build_bias(&attention->out, scope, "out_proj.bias", err);
}

/* The output of one query of one head. `qkv` is the row's [positions, 3 size], starting at this
 * head's queries. */
static void attend(const struct attention *attention, const float *qkv, size_t query, float *scores,
                   float *context)
{
    size_t size = attention->size, width = size / attention->heads;
    const float *keys = qkv + size, *values = qkv + 2 * size;
    float root = sqrtf((float)width);
    for (size_t i = 0; i < attention->positions; i++)
        scores[i] = dot(qkv + query * 3 * size, keys + i * 3 * size, width) / root;
    softmax(scores, attention->positions, scores, NULL);
    for (size_t i = 0; i < width; i++)
        context[i] = 0;
    for (size_t i = 0; i < attention->positions; i++)
        add_scaled(context, scores[i], values + i * 3 * size, width);
}

static void attention_forward(const struct layer *layer, const struct run *run, size_t rows,
                              const float *x, float *y)
{
    const struct attention *attention = layer->state;
    size_t positions = attention->positions, size = attention->size;
    size_t width = size / attention->heads;
    float *qkv = run_floats(run, attention->qkv, rows);
    float *context = run_floats(run, attention->context, rows);
    projection_forward(&attention->in, rows * positions, x, qkv);
    for (size_t row = 0; row < rows; row++)
        for (size_t query = 0; query < positions; query++)
            for (size_t head = 0; head < attention->heads; head++)
                attend(attention, qkv + row * positions * 3 * size + head * width, query,
                       run_workspace(run),
                       context + (row * positions + query) * size + head * width);
    projection_forward(&attention->out, rows * positions, context, y);
}

static void attention_free(struct layer *layer)
{
    struct attention *attention = layer->state;
    if (!attention)
        return;
    projection_close(&attention->in);
    projection_close(&attention->out);
}

const struct layer_op op_attention = {.name = "attention",
                                      .format = 2,
                                      .build = attention_build,
                                      .forward = attention_forward,
                                      .free = attention_free};

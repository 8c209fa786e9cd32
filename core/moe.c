/* The MoE layer: y = sum over the chosen experts of weight * expert(x). See moe.h for the steps. */
#include "moe.h"

#include <stdlib.h>
#include <string.h>

struct moe {
    struct gate gate;
    struct experts experts;
    size_t index; /* among the model's MoE layers, in order of execution */
};

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Floats of arena per row, in the order moe_forward takes them. */
static size_t scratch_per_row(const struct moe *moe, size_t in_elements, size_t out_elements)
{
    const struct gate *gate = &moe->gate;
    const struct experts *experts = &moe->experts;
    const size_t k = gate->top_k, e = experts->count;
    const size_t logits = e;
    const size_t results = k * (max_size(in_elements, experts->split_elements) + out_elements);
    size_t hidden = 0, attention = 0, heads = 0;
    if (gate->attentive) {
        hidden = e * gate->hidden;
        attention = (2 + e) * gate->hidden;
        heads = e * experts->scratch_per_row;
    }
    const size_t while_gating = max_size(attention + gate->chain.scratch_per_row, heads);
    return logits + hidden + max_size(while_gating, results + k * experts->scratch_per_row);
}

/* What one row costs inside the experts: all of the heads, top_k of the tails. */
static void count_active(struct layer *layer, const struct moe *moe)
{
    const struct chain *chain = &moe->experts.chains[0];
    for (size_t i = 0; i < chain->count; i++) {
        const uint64_t times = i < moe->experts.split ? moe->experts.count : moe->gate.top_k;
        layer->active_parameters += times * chain->layers[i].active_parameters;
        layer->macs += times * chain->layers[i].macs;
    }
    layer->macs += moe->gate.top_k * layer->out_elements;
}

static int add_info(struct build *build, const struct layer *layer, struct moe *moe,
                    struct config_node *node, struct error *err)
{
    for (size_t i = 0; i < build->moe_count; i++)
        if (strcmp(build->moe[i].name, layer->name) == 0)
            return config_error(node, "name", err, "two MoE layers are called '%s'", layer->name);
    if (build->moe_count == MAX_MOE_LAYERS)
        return config_error(node, NULL, err, "the model has more than %d MoE layers",
                            MAX_MOE_LAYERS);
    build->moe = xrealloc(build->moe, (build->moe_count + 1) * sizeof *build->moe);
    build->moe[build->moe_count] = (struct moed_moe_info){.name = layer->name,
                                                          .experts = moe->experts.count,
                                                          .top_k = moe->gate.top_k,
                                                          .routed_per_row = 1};
    moe->index = build->moe_count++;
    return 0;
}

static int moe_build(struct layer *layer, struct build *build, struct config_node *node,
                     struct error *err)
{
    struct moe *moe = layer->state = xcalloc(1, sizeof *moe);
    if (build->inside_moe)
        return config_error(node, NULL, err,
                            "a MoE layer inside a gate or an expert is not supported");
    if (!*layer->name)
        return config_error(node, "name", err, "missing; a MoE layer needs a name");
    if (experts_build(&moe->experts, layer, build, node, err) != 0 ||
        gate_build(&moe->gate, layer, build, node, &moe->experts, err) != 0 ||
        layer_set_out(layer, node, &moe->experts.chains[0].out, err) != 0)
        return -1;
    count_active(layer, moe);
    layer->collective = true;
    layer->workspace = max_size(layer->workspace, moe->gate.chain.workspace);
    layer->scratch_per_row = scratch_per_row(moe, layer->in_elements, layer->out_elements);
    return add_info(build, layer, moe, node, err);
}

static void moe_forward(const struct layer *layer, const struct run *run, size_t rows,
                        const float *x, float *y)
{
    const struct moe *moe = layer->state;
    struct routing *routing = run_routing(run, moe->index);
    struct run inner = *run;
    float *logits = inner.arena, *hidden = logits + rows * moe->experts.count;
    inner.arena = hidden;
    if (moe->gate.attentive) {
        inner.arena += rows * moe->experts.count * moe->gate.hidden;
        experts_heads(&moe->experts, &inner, rows, x, hidden);
    }
    gate_logits(&moe->gate, &inner, rows, x, hidden, logits);
    gate_select(&moe->gate, rows, logits, routing);
    dispatch(routing);

    const size_t pairs = rows * moe->gate.top_k;
    float *gathered = inner.arena;
    float *results = gathered + pairs * max_size(layer->in_elements, moe->experts.split_elements);
    inner.arena = results + pairs * layer->out_elements;
    experts_forward(&moe->experts, &inner, routing, x, hidden, gathered, results);
    combine(run, routing, layer->out_elements, results, y);
}

static void moe_free(struct layer *layer)
{
    struct moe *moe = layer->state;
    if (!moe)
        return;
    gate_close(&moe->gate);
    experts_close(&moe->experts);
}

static const struct chain *moe_child(const struct layer *layer, size_t index, const char **role)
{
    const struct moe *moe = layer->state;
    *role = index == 0 ? "gate" : "experts";
    return index == 0 ? &moe->gate.chain : index == 1 ? &moe->experts.chains[0] : NULL;
}

const struct layer_op op_moe = {.name = "moe",
                                .build = moe_build,
                                .forward = moe_forward,
                                .free = moe_free,
                                .child = moe_child};

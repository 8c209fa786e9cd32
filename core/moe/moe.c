/* The MoE layer: y = sum over the chosen experts of weight * expert(x). See moe.h for the steps. */
#include "core/moe/moe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"

/* An expert that serves every item, its output weighted by 1 or by sigmoid(w x). */
struct shared {
    struct chain chain; /* count 0: there is none */
    struct array gate;  /* w: [item]; values NULL: weight 1 */
};

struct moe {
    struct gate *gates;
    size_t gate_count;
    struct experts experts;
    struct shared shared;
    struct moed_shape item; /* what is routed: the row, or each vector of its last axis */
    size_t item_elements, items_per_row;
    size_t expert_elements; /* of an expert's output */
    size_t slots;           /* selections per item, all gates together */
    size_t index;           /* among the model's MoE layers, in order of execution */
};

void slice_of(struct slice *slice, struct moed_shape *shape, const struct moed_shape *item,
              size_t entry)
{
    *shape = *item;
    *slice = (struct slice){0, moed_shape_elements(item)};
    if (entry == WHOLE)
        return;
    shape->rank--;
    memmove(shape->dims, shape->dims + 1, shape->rank * sizeof *shape->dims);
    slice->elements /= item->dims[0];
    slice->first = entry * slice->elements;
}

int slice_read(struct slice *slice, struct moed_shape *shape, const struct moed_shape *item,
               struct config_node *node, const char *key, struct error *err)
{
    int64_t entry;
    slice_of(slice, shape, item, WHOLE);
    if (!config_has(node, key))
        return 0;
    if (item->rank == 0)
        return config_error(node, key, err, "the layer's input has no axis");
    if (config_integer(node, key, CONFIG_REQUIRED, 0, (int64_t)item->dims[0] - 1, &entry, err) != 0)
        return -1;
    slice_of(slice, shape, item, (size_t)entry);
    return 0;
}

/* "route": the item, and how many of them a row has. */
static int read_route(struct moe *moe, const struct layer *layer, struct config_node *node,
                      struct error *err)
{
    static const char *const names[] = {"rows", "positions", NULL};
    int route;
    if (config_choice(node, "route", names, 0, &route, err) != 0)
        return -1;
    moe->item = layer->in;
    if (route == 1) {
        if (layer->in.rank < 2)
            return config_error(node, "route", err, "rows of one axis have no positions");
        moe->item = (struct moed_shape){.rank = 1, .dims = {layer->in.dims[layer->in.rank - 1]}};
    }
    moe->item_elements = moed_shape_elements(&moe->item);
    moe->items_per_row = layer->in_elements / moe->item_elements;
    return 0;
}

static int build_gates(struct moe *moe, struct layer *layer, struct build *build,
                       struct config_node *node, struct error *err)
{
    struct config_node own;
    const bool listed = config_has(node, "gates");
    size_t count = 1;
    if (listed && config_has(node, "gate"))
        return config_error(node, "gates", err, "a MoE layer has either \"gate\" or \"gates\"");
    if (listed && moe->item.rank != layer->in.rank)
        return config_error(node, "gates", err, "several gates do not route positions");
    if (listed && config_list(node, "gates", &count, err) != 0)
        return -1;
    if (count > MAX_GATES)
        return config_error(node, "gates", err, "more than %d gates", MAX_GATES);
    moe->gates = xcalloc(count, sizeof *moe->gates);
    while (moe->gate_count < count) {
        struct gate *gate = &moe->gates[moe->gate_count++];
        if ((listed ? config_item(node, "gates", moe->gate_count - 1, &own, err)
                    : config_object(node, "gate", &own, err)) != 0 ||
            gate_build(gate, layer, build, &own, listed, &moe->item, &moe->experts, err) != 0)
            return -1;
        moe->slots += gate->top_k;
        layer->workspace = max_size(layer->workspace, gate->chain.workspace);
    }
    return 0;
}

static int build_shared_gate(struct moe *moe, struct layer *layer, const struct build *build,
                             struct error *err)
{
    struct layer part = {.op = layer->op, .name = "shared_gate"};
    struct build inner = *build;
    /* Fits: build_shared() has put "shared." behind the same. */
    strcat(strcat(inner.prefix, layer->name), ".");
    const size_t dims[2] = {1, moe->item_elements};
    if (array_build(&moe->shared.gate, &part, &inner, "weight", dims, 2, true, err) != 0)
        return -1;
    layer->parameters += part.parameters;
    layer->active_parameters += part.parameters;
    layer->weight_bytes += part.weight_bytes;
    return 0;
}

static int build_shared(struct moe *moe, struct layer *layer, const struct build *build,
                        struct config_node *node, struct error *err)
{
    static const char *const gates[] = {"none", "sigmoid", NULL};
    struct config_node own;
    struct build inner = *build;
    struct chain *chain = &moe->shared.chain;
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    int gate;
    if (!config_has(node, "shared"))
        return 0;
    if (moe->gate_count > 1)
        return config_error(node, "shared", err, "goes with one gate, not with several");
    if (snprintf(inner.prefix, sizeof inner.prefix, "%s%s.shared.", build->prefix, layer->name) >=
        (int)sizeof inner.prefix)
        return config_error(node, "shared", err, "tensor names would be too long");
    inner.no_moe = true;
    if (config_object(node, "shared", &own, err) != 0 ||
        config_choice(&own, "gate", gates, 0, &gate, err) != 0 ||
        chain_build(chain, &inner, &own, "layers", &moe->item, err) != 0)
        return -1;
    if (!shape_equal(&chain->out, &moe->experts.chains[0].out))
        return config_error(&own, "layers", err, "give %s, the experts give %s",
                            shape_text(&chain->out, a), shape_text(&moe->experts.chains[0].out, b));
    if (gate == 1 && build_shared_gate(moe, layer, build, err) != 0)
        return -1;
    layer->workspace = max_size(layer->workspace, chain->workspace);
    layer->parameters += chain->parameters;
    layer->active_parameters += chain->active_parameters;
    layer->weight_bytes += chain->weight_bytes;
    return config_done(&own, err);
}

/* [the axes before the items', the gates if there are several, the expert's own] */
static int set_out(struct layer *layer, const struct moe *moe, struct config_node *node,
                   struct error *err)
{
    const struct moed_shape *expert = &moe->experts.chains[0].out;
    struct moed_shape out = {.rank = 0};
    if (moe->item.rank != layer->in.rank) { /* positions */
        out = layer->in;
        out.rank--;
    }
    if (config_has(node, "gates"))
        out.dims[out.rank++] = moe->gate_count;
    if (out.rank + expert->rank > MOED_MAX_RANK)
        return config_error(node, NULL, err, "the result would have more than %d axes",
                            MOED_MAX_RANK);
    memcpy(out.dims + out.rank, expert->dims, expert->rank * sizeof *out.dims);
    out.rank += expert->rank;
    return layer_set_out(layer, node, &out, err);
}

/* Floats of arena per item, in the order moe_forward takes them. */
static size_t scratch_per_item(const struct moe *moe)
{
    const struct experts *experts = &moe->experts;
    size_t gating = 0, logits = 0, hidden = 0;
    for (size_t i = 0; i < moe->gate_count; i++) {
        gating = max_size(gating, gate_scratch(&moe->gates[i], moe->item_elements));
        logits = max_size(logits, moe->gates[i].experts);
    }
    if (experts->split) {
        hidden = experts->count * experts->split_elements;
        gating = max_size(gating, experts->count * experts->scratch_per_row);
    }
    const size_t pair = experts_input(experts, moe->item_elements) + moe->expert_elements +
                        experts->scratch_per_row;
    const size_t shared =
        moe->shared.chain.count ? moe->expert_elements + moe->shared.chain.scratch_per_row : 0;
    return logits + hidden + max_size(max_size(gating, shared), moe->slots * pair);
}

/* What one row costs inside the experts: all of the heads, the chosen ones' tails. Several gates
 * may choose the same experts; no more than there are is run. */
static void count_active(struct layer *layer, const struct moe *moe)
{
    const struct chain *chain = &moe->experts.chains[0];
    const size_t chosen = moe->slots < moe->experts.count ? moe->slots : moe->experts.count;
    uint64_t macs = moe->slots * moe->expert_elements + moe->shared.chain.macs;
    for (size_t i = 0; i < chain->count; i++) {
        const uint64_t times = i < moe->experts.split ? moe->experts.count : chosen;
        layer->active_parameters += times * chain->layers[i].active_parameters;
        macs += times * chain->layers[i].macs;
    }
    for (size_t i = 0; i < moe->gate_count; i++)
        macs += moe->gates[i].macs;
    layer->macs = macs * moe->items_per_row;
}

static int format_2_keys(const struct build *build, struct config_node *node, struct error *err)
{
    static const char *const keys[] = {"gates", "route", "shared"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (format_2_key(build, node, keys[i], err) != 0)
            return -1;
    return 0;
}

static void add_sizes(struct build *build, struct moe *moe)
{
    build->moe = xrealloc(build->moe, (build->moe_count + 1) * sizeof *build->moe);
    build->moe[build->moe_count] = (struct moe_sizes){
        .experts = moe->experts.count, .items_per_row = moe->items_per_row, .slots = moe->slots};
    moe->index = build->moe_count++;
}

static int moe_build(struct layer *layer, struct build *build, struct config_node *node,
                     struct error *err)
{
    struct moe *moe = layer->state = xcalloc(1, sizeof *moe);
    if (build->no_moe)
        return config_error(node, NULL, err,
                            "a MoE layer stands among the model's layers or in a residual of them, "
                            "not inside a gate, an expert, an input or an output");
    if (!*layer->name)
        return config_error(node, "name", err, "missing; a MoE layer needs a name");
    if (format_2_keys(build, node, err) != 0 || read_route(moe, layer, node, err) != 0 ||
        experts_build(&moe->experts, layer, build, node, &moe->item, err) != 0 ||
        build_gates(moe, layer, build, node, err) != 0 ||
        build_shared(moe, layer, build, node, err) != 0 || set_out(layer, moe, node, err) != 0)
        return -1;
    moe->expert_elements = moe->experts.chains[0].out_elements;
    count_active(layer, moe);
    layer->collective = true;
    layer->scratch_per_row = scratch_per_item(moe) * moe->items_per_row;
    add_sizes(build, moe);
    return 0;
}

/* Every gate's decisions. Returns the output of the experts' first layers, if a gate needs them. */
static const float *decide(const struct moe *moe, struct run *run, size_t items, const float *x)
{
    float *logits = run->arena, *hidden = NULL;
    for (size_t i = 0; i < moe->gate_count; i++)
        if (run->arena < logits + items * moe->gates[i].experts)
            run->arena = logits + items * moe->gates[i].experts;
    if (moe->experts.split) {
        hidden = run->arena;
        run->arena += items * moe->experts.count * moe->experts.split_elements;
        experts_heads(&moe->experts, run, items, x, hidden);
    }
    for (size_t i = 0; i < moe->gate_count; i++) {
        const struct gate *gate = &moe->gates[i];
        gate_logits(gate, run, items, moe->item_elements, x, hidden, logits);
        gate_select(gate, run, items, logits, &run->routing[gate->index]);
    }
    return hidden;
}

static void add_shared(const struct moe *moe, struct run run, size_t items, const float *x,
                       float *y)
{
    const struct shared *shared = &moe->shared;
    const size_t elements = moe->expert_elements;
    float *out = run.arena;
    run.arena += items * elements;
    chain_forward(&shared->chain, 0, shared->chain.count, &run, items, x, out);
    for (size_t item = 0; item < items; item++, x += moe->item_elements) {
        float weight = 1.0f;
        if (shared->gate.values)
            weight = sigmoid(dot(shared->gate.values, x, moe->item_elements));
        add_scaled(y + item * elements, weight, out + item * elements, elements);
    }
}

static void moe_forward(const struct layer *layer, const struct run *run, size_t rows,
                        const float *x, float *y)
{
    const struct moe *moe = layer->state;
    const size_t items = rows * moe->items_per_row, elements = moe->expert_elements;
    struct dispatch *dispatch = &run->dispatches[moe->index];
    /* A layer's gates are built one after the other. */
    const struct routing *routing = &run->routing[moe->gates[0].index];
    struct run inner = *run;
    const float *hidden = decide(moe, &inner, items, x);
    dispatch_pairs(dispatch, routing, moe->gate_count);

    struct run after = inner;
    const size_t pairs = items * moe->slots;
    float *gathered = inner.arena;
    float *results = gathered + pairs * experts_input(&moe->experts, moe->item_elements);
    inner.arena = results + pairs * elements;
    experts_forward(&moe->experts, &inner, dispatch, moe->item_elements, x, hidden, gathered,
                    results);
    for (size_t i = 0, slot = 0; i < moe->gate_count; slot += moe->gates[i++].top_k)
        combine(&routing[i].decisions, dispatch, slot, elements, moe->gate_count * elements,
                results, y + i * elements);
    if (moe->shared.chain.count)
        add_shared(moe, after, items, x, y);
}

static void moe_free(struct layer *layer)
{
    struct moe *moe = layer->state;
    if (!moe)
        return;
    for (size_t i = 0; i < moe->gate_count; i++)
        gate_close(&moe->gates[i]);
    free(moe->gates);
    experts_close(&moe->experts);
    chain_close(&moe->shared.chain);
    array_close(&moe->shared.gate);
}

static const struct chain *moe_child(const struct layer *layer, size_t index, const char **role)
{
    const struct moe *moe = layer->state;
    *role = index < moe->gate_count ? "gate" : index == moe->gate_count ? "experts" : "shared";
    if (index < moe->gate_count)
        return &moe->gates[index].chain;
    if (index == moe->gate_count)
        return &moe->experts.chains[0];
    return index == moe->gate_count + 1 && moe->shared.chain.count ? &moe->shared.chain : NULL;
}

size_t moe_gates(const struct layer *layer)
{
    const struct moe *moe = layer->state;
    return moe->gate_count;
}

const struct layer_op op_moe = {.name = "moe",
                                .build = moe_build,
                                .forward = moe_forward,
                                .free = moe_free,
                                .child = moe_child};

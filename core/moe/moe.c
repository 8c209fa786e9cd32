/* The MoE layer, step by step: y = sum over the chosen experts of weight * expert(x).
 *
 *     gate -> select -> dispatch -> experts -> combine
 *
 * gate.c      logits for every item
 * policy.c    what the choice goes by (score.c), and the weights it gives (normalize.c)
 * select.c    the decision: top_k experts of every item, and their combine weights
 * dispatch.c  counts items per expert and sorts the (item, expert) pairs by expert
 * experts.c   runs each active expert once over its pairs
 * combine.c   adds the results back, weighted, in a fixed order
 * moe.c       the layer that holds them together
 *
 * An *item* is what gets routed: a row, or each position of one. A layer has one gate, or several
 * that choose among the same experts for tasks of their own; a pair that two gates chose is run
 * once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"
#include "core/layers/ops.h"
#include "core/memory.h"
#include "core/moe/combine.h"
#include "core/moe/select.h"

/* An expert that serves every item, its output weighted by 1 or by sigmoid(w x). */
struct shared {
    struct chain chain; /* count 0: there is none */
    struct array gate;  /* w: [item]; values NULL: weight 1 */
    struct cost cost;
    size_t out, layers; /* places */
};

struct moe {
    struct gate *gates;
    size_t gate_count;
    struct experts experts;
    struct shared shared;
    struct moed_shape item; /* what is routed: the row, or each vector of its last axis */
    size_t item_elements, items_per_row;
    size_t expert_elements;                 /* of an expert's output */
    size_t slots;                           /* selections per item, all gates together */
    bool weighs_inputs;                     /* weights multiply what the experts see */
    struct plan plan;                       /* for each item */
    size_t place;                           /* of that in the layer's plan */
    size_t logits, hidden, gating, results; /* places in plan */
    size_t index; /* among the model's MoE layers, in order of execution */
};

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

static int build_gates(struct moe *moe, struct layer *layer, const struct scope *scope,
                       struct config_node *node, struct error *err)
{
    struct config_items items = {
        .owner = "a MoE layer", .one = "gate", .many = "gates", .most = MAX_GATES};
    if (config_items(&items, node, err) != 0)
        return -1;
    if (items.listed && moe->item.rank != layer->in.rank)
        return config_error(node, "gates", err, "several gates do not route positions");
    const struct gated gated = {.layer = layer->name,
                                .item = moe->item,
                                .items_per_row = moe->items_per_row,
                                .listed = items.listed,
                                .experts = &moe->experts};
    moe->gates = xcalloc(items.count, sizeof *moe->gates);
    while (moe->gate_count < items.count) {
        struct config_node own;
        struct gate *gate = &moe->gates[moe->gate_count++];
        if (config_items_at(&items, node, moe->gate_count - 1, &own, err) != 0 ||
            gate_build(gate, scope, &own, &gated, err) != 0)
            return -1;
        if (gate->attentive)
            experts_split(&moe->experts, gate->key_layer);
        moe->slots += gate->policy.top_k;
    }
    return 0;
}

/* "weigh": what the weights multiply. */
static int read_weigh(struct moe *moe, struct config_node *node, struct error *err)
{
    static const char *const names[] = {"outputs", "inputs", NULL};
    int weigh;
    if (config_choice(node, "weigh", names, 0, &weigh, err) != 0)
        return -1;
    moe->weighs_inputs = weigh == 1;
    if (moe->weighs_inputs && config_has(node, "gates"))
        return config_error(node, "weigh", err, "several gates weigh the experts' outputs");
    if (moe->weighs_inputs && moe->experts.split)
        return config_error(node, "weigh", err, "an attentive gate weighs the experts' outputs");
    return 0;
}

static int build_shared_gate(struct moe *moe, const struct scope *outer, struct config_node *node,
                             struct error *err)
{
    struct scope scope;
    const struct moed_shape shape = {.rank = 2, .dims = {1, moe->item_elements}};
    if (scope_enter(&scope, outer, node, err, "shared_gate") != 0)
        return -1;
    scope.cost = &moe->shared.cost;
    return array_build(&moe->shared.gate, &scope, "weight", &shape, err);
}

static int build_shared(struct moe *moe, const struct scope *outer, struct config_node *node,
                        struct error *err)
{
    static const char *const gates[] = {"none", "sigmoid", NULL};
    struct config_node own;
    struct scope scope;
    struct chain *chain = &moe->shared.chain;
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    int gate;
    if (!config_has(node, "shared"))
        return 0;
    if (moe->gate_count > 1)
        return config_error(node, "shared", err, "goes with one gate, not with several");
    if (scope_enter(&scope, outer, node, err, "shared") != 0)
        return -1;
    scope.no_moe = true;
    if (config_object(node, "shared", &own, err) != 0 ||
        config_choice(&own, "gate", gates, 0, &gate, err) != 0 ||
        chain_build(chain, &scope, &own, "layers", &moe->item, err) != 0)
        return -1;
    if (!shape_equal(&chain->out, &moe->experts.chains[0].out))
        return config_error(&own, "layers", err, "give %s, the experts give %s",
                            shape_text(&chain->out, a), shape_text(&moe->experts.chains[0].out, b));
    if (gate == 1 && build_shared_gate(moe, outer, node, err) != 0)
        return -1;
    cost_add(&moe->shared.cost, &chain->cost);
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

/* Plans moe_forward()'s steps: the gates', then the experts', then the shared expert's, which need
 * no other's scratch. */
static void plan_steps(struct moe *moe)
{
    struct plan *plan = &moe->plan;
    size_t logits = 0;
    for (size_t i = 0; i < moe->gate_count; i++)
        logits = max_size(logits, moe->gates[i].policy.experts);
    moe->logits = plan_floats(plan, logits);
    if (moe->experts.split) {
        moe->hidden = plan_floats(plan, moe->experts.count * moe->experts.split_elements);
        experts_plan_front(&moe->experts, plan);
    }
    moe->gating = plan->used;
    for (size_t i = 0; i < moe->gate_count; i++)
        plan_passing_part(plan, &moe->gates[i].plan, 1);
    moe->results = plan_floats(plan, moe->slots * moe->expert_elements);
    experts_plan(&moe->experts, plan, moe->slots);
    plan_release(plan, moe->results);
    if (moe->shared.chain.count) {
        moe->shared.out = plan_floats(plan, moe->expert_elements);
        moe->shared.layers = plan_part(plan, &moe->shared.chain.plan, 1);
    }
}

/* Of the weights of one expert, without the layers that run for all of them. */
static uint64_t expert_bytes(const struct experts *experts)
{
    uint64_t bytes = 0;
    for (size_t i = experts->split; i < experts->chains[0].count; i++)
        bytes += experts->chains[0].layers[i].cost.shared_bytes;
    return bytes;
}

/* The weights of everything. Of the work, every expert's layers before the split, and those after
 * it of the chosen experts. Several gates may choose the same experts; no more than there are is
 * run. */
static struct cost cost_of(const struct moe *moe)
{
    const struct experts *experts = &moe->experts;
    size_t chosen = moe->slots < experts->count ? moe->slots : experts->count;
    struct cost cost = {.macs = moe->slots * moe->expert_elements};
    for (size_t i = 0; i < moe->gate_count; i++)
        cost_add(&cost, &moe->gates[i].cost);
    cost_add(&cost, &moe->shared.cost);
    for (size_t i = 0; i < experts->count; i++)
        cost_add_weights(&cost, &experts->chains[i].cost);
    for (size_t i = 0; i < experts->chains[0].count; i++)
        cost_add_work(&cost, &experts->chains[0].layers[i].cost,
                      i < experts->split ? experts->count : chosen);
    cost.shared_bytes -= chosen * expert_bytes(experts);
    cost.macs *= moe->items_per_row;
    return cost;
}

static void add_sizes(struct loading *loading, struct moe *moe)
{
    loading->moe = xrealloc(loading->moe, (loading->moe_count + 1) * sizeof *loading->moe);
    loading->moe[loading->moe_count] = (struct moe_sizes){.experts = moe->experts.count,
                                                          .items_per_row = moe->items_per_row,
                                                          .slots = moe->slots,
                                                          .weighs_inputs = moe->weighs_inputs};
    moe->index = loading->moe_count++;
    for (size_t i = 0; i < moe->gate_count; i++)
        loading->gates[moe->gates[i].index].expert_bytes = expert_bytes(&moe->experts);
}

static int moe_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                     struct error *err)
{
    struct moe *moe = layer->state = xcalloc(1, sizeof *moe);
    const int format = scope->loading->format;
    if (scope->no_moe)
        return config_error(node, NULL, err,
                            "a MoE layer stands among the model's layers or in a residual of them, "
                            "not inside a gate, an expert, an input or an output");
    if (!*layer->name)
        return config_error(node, "name", err, "missing; a MoE layer needs a name");
    if (config_since(node, 2, format, KEYS("gates", "route", "shared"), err) != 0 ||
        config_since(node, 3, format, KEYS("weigh"), err) != 0 ||
        read_route(moe, layer, node, err) != 0)
        return -1;
    bool routes_positions = moe->item.rank != layer->in.rank;
    if (scope->padded && !routes_positions)
        return config_error(node, "route", err,
                            "rows of different length are routed by \"positions\"");
    layer->padded = scope->padded;
    struct scope parts = *scope;
    parts.routed = true;
    parts.padded = false;
    if (experts_build(&moe->experts, &parts, node, &moe->item, routes_positions, err) != 0 ||
        build_gates(moe, layer, &parts, node, err) != 0 || read_weigh(moe, node, err) != 0 ||
        build_shared(moe, &parts, node, err) != 0 || set_out(layer, moe, node, err) != 0)
        return -1;
    moe->expert_elements = moe->experts.chains[0].out_elements;
    layer->cost = cost_of(moe);
    layer->collective = true;
    plan_steps(moe);
    moe->place = plan_part(&layer->plan, &moe->plan, moe->items_per_row);
    add_sizes(scope->loading, moe);
    return 0;
}

/* Every gate's decisions. Returns the output of the experts' first layers, if a gate needs them. */
static const float *decide(const struct moe *moe, const struct run *run, size_t items,
                           const float *x)
{
    float *logits = run_floats(run, moe->logits, items), *hidden = NULL;
    struct run gating = run_part(run, moe->gating, items);
    gating.lengths = NULL;
    if (moe->experts.split) {
        hidden = run_floats(run, moe->hidden, items);
        experts_front(&moe->experts, run, items, x, hidden);
    }
    for (size_t i = 0; i < moe->gate_count; i++) {
        const struct gate *gate = &moe->gates[i];
        gate_logits(gate, &gating, items, x, hidden, logits);
        gate_select(gate, run, items, logits, &run->routing[gate->index]);
    }
    return hidden;
}

static void add_shared(const struct moe *moe, const struct run *run, size_t items, const float *x,
                       float *y)
{
    const struct shared *shared = &moe->shared;
    const size_t elements = moe->expert_elements;
    float *out = run_floats(run, shared->out, items);
    struct run inner = run_part(run, shared->layers, items);
    chain_forward(&shared->chain, &inner, items, x, out);
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
    struct run inner = run_part(run, moe->place, rows);
    inner.lengths = layer->padded_in ? run->lengths : NULL;
    float *results = run_floats(&inner, moe->results, items);
    const float *hidden = decide(moe, &inner, items, x);
    inner.lengths = NULL; /* what is inside works on items */
    dispatch_pairs(dispatch, run, moe->gates[0].index, moe->gate_count);
    experts_forward(&moe->experts, &inner, dispatch, x, hidden, results);
    for (size_t i = 0; i < moe->gate_count; i++)
        run->routing[moe->gates[i].index].decisions.seconds = dispatch->timing.seconds;
    combine(routing, moe->gate_count, dispatch, elements, results, y);
    if (moe->shared.chain.count)
        add_shared(moe, &inner, items, x, y);
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

static size_t moe_gates(const struct layer *layer)
{
    const struct moe *moe = layer->state;
    return moe->gate_count;
}

const struct layer_op op_moe = {.name = "moe",
                                .padding = PADDING_OWN,
                                .build = moe_build,
                                .forward = moe_forward,
                                .free = moe_free,
                                .child = moe_child,
                                .gates = moe_gates};

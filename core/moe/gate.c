/* A gate is built in two parts: its policy, which needs no tensors, and its layers. */
#include "core/moe/gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"
#include "core/memory.h"
#include "core/text.h"

static int build_attention(struct gate *gate, const struct scope *scope, struct error *err)
{
    const size_t h = gate->hidden;
    if (projection_build(&gate->query, scope, "query.weight", h, h, err) != 0 ||
        projection_build(&gate->key, scope, "key.weight", h, h, err) != 0)
        return -1;
    gate->cost.macs += (1 + gate->policy.experts) * h * h + gate->policy.experts * h;
    return 0;
}

/* "key_layer": the layer of every expert whose output the keys are made of. */
static int find_key_layer(struct gate *gate, struct config_node *node,
                          const struct experts *experts, struct error *err)
{
    const char *name;
    if (config_text(node, "key_layer", NULL, &name, err) != 0)
        return -1;
    const struct chain *first = &experts->chains[0];
    if (experts->identities)
        return config_error(node, "key_layer", err, "identity experts have no layers");
    gate->key_layer = chain_find(first, name);
    if (gate->key_layer == first->count)
        return config_error(node, "key_layer", err, "no expert layer is called '%.40s'", name);
    if (first->branched)
        return config_error(node, "key_layer", err,
                            "experts whose layers read by name cannot be cut in two");
    for (size_t i = 0; i < experts->count; i++) {
        size_t elements = experts->chains[i].layers[gate->key_layer].out_elements;
        if (elements != gate->hidden)
            return config_error(
                node, "key_layer", err,
                "expert %zu's '%.40s' gives %zu number%s, the gate's hidden vector has %zu", i,
                name, elements, text_s(elements), gate->hidden);
    }
    return 0;
}

/* "experts" of one gate of several: the layer's experts that it chooses among. */
static int read_choice(struct gate *gate, struct config_node *node, size_t experts,
                       struct error *err)
{
    if (!config_has(node, "experts"))
        return 0;
    if (config_integers(node, "experts", within(0, (int64_t)experts - 1), &gate->expert_index,
                        &gate->policy.experts, err) != 0)
        return -1;
    for (size_t i = 1; i < gate->policy.experts; i++)
        if (gate->expert_index[i] <= gate->expert_index[i - 1])
            return config_error(node, "experts", err, "expected indices in ascending order");
    return 0;
}

static int build_layers(struct gate *gate, const struct scope *scope, struct config_node *node,
                        const struct moed_shape *in, struct error *err)
{
    char text[SHAPE_TEXT_BYTES];
    if (chain_build(&gate->chain, scope, node, "layers", in, err) != 0)
        return -1;
    if (gate->chain.out.rank != 1 ||
        (!gate->attentive && gate->chain.out_elements != gate->policy.experts))
        return config_error(node, "layers", err, "give %s; expected [%zu], one logit per expert",
                            shape_text(&gate->chain.out, text), gate->policy.experts);
    gate->hidden = gate->chain.out_elements;
    cost_add(&gate->cost, &gate->chain.cost);
    return 0;
}

/* What is kept to count each expert of a gate (core/gate_counts.h), by whoever serves the model:
 * for each event loop, and for a few of the windows that it looks back. */
enum { COUNTED_BYTES = 1024 };

/* A gate's statistics go by the layer's name, with that of a gate that is one of several. */
static int add_info(struct gate *gate, const struct scope *scope, struct config_node *node,
                    const struct gated *gated, const char *name, struct error *err)
{
    struct loading *loading = scope->loading;
    char full[MAX_TENSOR_NAME];
    snprintf(full, sizeof full, "%s%s%s", gated->layer, *name ? "." : "", name);
    for (size_t i = 0; i < loading->gate_count; i++)
        if (strcmp(loading->gates[i].name, full) == 0)
            return config_error(*name ? node : node->parent, "name", err,
                                "two MoE layers or gates are called '%s'", full);
    if (loading->gate_count == MAX_GATES)
        return config_error(node, NULL, err, "the model has more than %d gates", MAX_GATES);
    if (scope_take(scope, node, "counters of experts", gate->policy.experts, COUNTED_BYTES, err) !=
        0)
        return -1;
    loading->gates = xrealloc(loading->gates, (loading->gate_count + 1) * sizeof *loading->gates);
    gate->index = loading->gate_count++;
    loading->gates[gate->index] =
        (struct moed_gate_info){.name = xstrdup(full),
                                .experts = gate->policy.experts,
                                .expert_index = gate->expert_index,
                                .top_k = gate->policy.top_k,
                                .limited = gate->policy.capacity.limited,
                                .signed_weights = policy_is_signed(&gate->policy),
                                .fixed_top_k = gate->policy.score->fixed_top_k,
                                .groups = gate->policy.groups,
                                .groups_kept = gate->policy.groups_kept,
                                .group_experts = policy_group_experts(&gate->policy),
                                .items_per_row = gated->items_per_row};
    return 0;
}

/* What one gate of several has: a name, and its own view of the experts and the item. */
static int read_listed(struct gate *gate, struct config_node *node, const struct gated *gated,
                       const char **name, struct moed_shape *in, struct error *err)
{
    if (config_text(node, "name", NULL, name, err) != 0)
        return -1;
    if (!**name || !name_is_valid(*name, NAME_MAX_BYTES))
        return config_error(node, "name", err, "expected 1 to %d " NAME_ALPHABET, NAME_MAX_BYTES);
    if (read_choice(gate, node, gate->policy.experts, err) != 0)
        return -1;
    return slice_read(&gate->input, in, &gated->item, node, "input", err);
}

/* Tensors that are the gate's own and no layer's: select_bias, expert_scale, and attention's query
 * and key. */
static int build_own_tensors(struct gate *gate, const struct scope *scope, struct config_node *node,
                             const struct experts *experts, struct error *err)
{
    const struct moed_shape each = {.rank = 1, .dims = {gate->policy.experts}};
    if (array_build_optional(&gate->select_bias, scope, "select_bias", &each, err) != 0)
        return -1;
    if (scope->loading->format >= 3 &&
        array_build_optional(&gate->expert_scale, scope, "expert_scale", &each, err) != 0)
        return -1;
    for (size_t i = 0; gate->expert_scale.values && i < gate->policy.experts; i++)
        scope->loading->gates[gate->index].signed_weights |= gate->expert_scale.values[i] < 0;
    if (gate->expert_scale.values && gate->policy.capacity.renormalizes)
        return config_error(node, "capacity", err,
                            "\"renormalize\" does not go with the tensor expert_scale");
    if (gate->select_bias.values && gate->policy.score->no_bias)
        return config_error(node, "score", err, "'%s' goes with no tensor select_bias",
                            gate->policy.score->name);
    if (gate->attentive &&
        (find_key_layer(gate, node, experts, err) != 0 || build_attention(gate, scope, err) != 0))
        return -1;
    return 0;
}

static void plan_logits(struct gate *gate)
{
    struct plan *plan = &gate->plan;
    if (gate->input.elements != gate->item_elements)
        gate->sliced = plan_floats(plan, gate->input.elements);
    if (gate->attentive) {
        gate->hidden_out = plan_floats(plan, gate->hidden);
        gate->queries = plan_floats(plan, gate->hidden);
        gate->keys = plan_floats(plan, gate->policy.experts * gate->hidden);
    }
    gate->layers = plan_part(plan, &gate->chain.plan, 1);
}

int gate_build(struct gate *gate, const struct scope *outer, struct config_node *node,
               const struct gated *gated, struct error *err)
{
    static const char *const kinds[] = {"plain", "attentive", NULL};
    struct moed_shape in;
    struct scope scope;
    const char *name = "";
    int kind;
    gate->policy.experts = gated->experts->count;
    gate->item_elements = moed_shape_elements(&gated->item);
    slice_of(&gate->input, &in, &gated->item, WHOLE);
    if ((gated->listed && read_listed(gate, node, gated, &name, &in, err) != 0) ||
        config_choice(node, "kind", kinds, 0, &kind, err) != 0 ||
        policy_read(&gate->policy, node, outer->loading->format, err) != 0)
        return -1;
    gate->attentive = kind == 1;
    if (gated->listed && gate->attentive)
        return config_error(node, "kind", err, "one gate of several cannot be attentive");
    if (scope_enter(&scope, outer, node, err, "gate%s%s", gated->listed ? "s." : "", name) != 0)
        return -1;
    scope.cost = &gate->cost;
    scope.no_moe = true;
    scope.precision = (struct precision){.sizes_only = outer->precision.sizes_only};
    if (add_info(gate, &scope, node, gated, name, err) != 0 ||
        build_layers(gate, &scope, node, &in, err) != 0 ||
        build_own_tensors(gate, &scope, node, gated->experts, err) != 0)
        return -1;
    plan_logits(gate);
    return config_done(node, err);
}

void gate_close(struct gate *gate)
{
    chain_close(&gate->chain);
    array_close(&gate->select_bias);
    array_close(&gate->expert_scale);
    projection_close(&gate->query);
    projection_close(&gate->key);
    free(gate->expert_index);
}

static void attentive_logits(const struct gate *gate, const struct run *run, size_t items,
                             const float *x, const float *hidden, float *logits)
{
    const size_t h = gate->hidden;
    float *g = run_floats(run, gate->hidden_out, items);  /* [items, h] */
    float *query = run_floats(run, gate->queries, items); /* [items, h] */
    float *keys = run_floats(run, gate->keys, items);     /* [experts, items, h] */
    struct run inner = run_part(run, gate->layers, items);
    chain_forward(&gate->chain, &inner, items, x, g);
    projection_forward(&gate->query, items, g, query);
    projection_forward(&gate->key, gate->policy.experts * items, hidden, keys);
    const float root = sqrtf((float)h);
    for (size_t item = 0; item < items; item++)
        for (size_t e = 0; e < gate->policy.experts; e++)
            logits[item * gate->policy.experts + e] =
                dot(query + item * h, keys + (e * items + item) * h, h) / root;
}

void gate_logits(const struct gate *gate, const struct run *run, size_t items, const float *x,
                 const float *hidden, float *logits)
{
    const struct slice *input = &gate->input;
    if (input->elements != gate->item_elements) {
        float *sliced = run_floats(run, gate->sliced, items);
        for (size_t item = 0; item < items; item++)
            memcpy(sliced + item * input->elements, x + item * gate->item_elements + input->first,
                   input->elements * sizeof *x);
        x = sliced;
    }
    if (gate->attentive) {
        attentive_logits(gate, run, items, x, hidden, logits);
        return;
    }
    struct run inner = run_part(run, gate->layers, items);
    chain_forward(&gate->chain, &inner, items, x, logits);
}

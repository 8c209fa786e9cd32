/* The gate as it is configured and as it scores: one logit per expert for every item. The choice
 * that follows is in select.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"
#include "core/moe/moe.h"

static int build_attention(struct gate *gate, struct layer *part, const struct build *build,
                           struct error *err)
{
    const size_t h = gate->hidden;
    if (projection_build(&gate->query, part, build, "query.weight", NULL, h, h, err) != 0 ||
        projection_build(&gate->key, part, build, "key.weight", NULL, h, h, err) != 0)
        return -1;
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

/* "groups": {"count", "keep", "by"} */
static int read_groups(struct gate *gate, struct config_node *node, struct error *err)
{
    static const char *const by[] = {"top2", "max", NULL};
    struct config_node own;
    int64_t count, keep;
    if (!config_has(node, "groups"))
        return 0;
    if (config_object(node, "groups", &own, err) != 0 ||
        config_integer(&own, "count", CONFIG_REQUIRED, 1, MAX_GROUPS, &count, err) != 0 ||
        config_integer(&own, "keep", CONFIG_REQUIRED, 1, count, &keep, err) != 0 ||
        config_choice(&own, "by", by, GROUP_TOP2, &gate->group_score, err) != 0)
        return -1;
    gate->groups = (size_t)count;
    gate->groups_kept = (size_t)keep;
    if (gate->experts % gate->groups != 0)
        return config_error(&own, "count", err, "%zu experts do not make %zu equal groups",
                            gate->experts, gate->groups);
    const size_t selectable = gate->experts / gate->groups * gate->groups_kept;
    if (gate->top_k > selectable)
        return config_error(&own, "keep", err, "%zu groups hold %zu experts, fewer than top_k %zu",
                            gate->groups_kept, selectable, gate->top_k);
    return config_done(&own, err);
}

/* "capacity": {"factor", "minimum"} */
static int read_capacity(struct gate *gate, struct config_node *node, struct error *err)
{
    struct config_node own;
    int64_t minimum;
    if (!config_has(node, "capacity"))
        return 0;
    if (config_object(node, "capacity", &own, err) != 0 ||
        config_real(&own, "factor", NULL, &gate->capacity_factor, err) != 0 ||
        config_integer(&own, "minimum", 1, 1, INT32_MAX, &minimum, err) != 0)
        return -1;
    if (gate->capacity_factor <= 0)
        return config_error(&own, "factor", err, "expected a number above 0");
    gate->limited = true;
    gate->capacity_minimum = (double)minimum;
    return config_done(&own, err);
}

static int read_policy(struct gate *gate, const struct build *build, struct config_node *node,
                       struct error *err)
{
    static const char *const kinds[] = {"plain", "attentive", NULL};
    const double one = 1.0;
    const int64_t count = (int64_t)gate->experts;
    int kind;
    int64_t top_k;
    double scale;
    if (config_choice(node, "kind", kinds, 0, &kind, err) != 0 ||
        !(gate->score = score_read(node, build->format, err)) ||
        !(gate->normalize = normalize_read(node, build->format, err)) ||
        config_integer(node, "top_k", count, 1, count, &top_k, err) != 0 ||
        config_real(node, "scale", &one, &scale, err) != 0)
        return -1;
    gate->attentive = kind == 1;
    gate->top_k = (size_t)top_k;
    gate->scale = (float)scale;
    if (format_2_key(build, node, "groups", err) != 0 ||
        format_2_key(build, node, "capacity", err) != 0 || read_groups(gate, node, err) != 0 ||
        read_capacity(gate, node, err) != 0 ||
        (gate->score->check && gate->score->check(gate, node, err) != 0))
        return -1;
    return gate->normalize->check ? gate->normalize->check(gate, node, err) : 0;
}

/* "experts" of one gate of several: the layer's experts that it chooses among. */
static int read_choice(struct gate *gate, struct config_node *node, size_t experts,
                       struct error *err)
{
    if (!config_has(node, "experts"))
        return 0;
    if (config_integers(node, "experts", 0, (int64_t)experts - 1, &gate->expert_index,
                        &gate->experts, err) != 0)
        return -1;
    for (size_t i = 1; i < gate->experts; i++)
        if (gate->expert_index[i] <= gate->expert_index[i - 1])
            return config_error(node, "experts", err, "expected indices in ascending order");
    return 0;
}

static int build_layers(struct gate *gate, const struct build *build, struct config_node *node,
                        const char *prefix, const struct moed_shape *in, struct error *err)
{
    char text[SHAPE_TEXT_BYTES];
    struct build inner = *build;
    if (snprintf(inner.prefix, sizeof inner.prefix, "%s.", prefix) >= (int)sizeof inner.prefix)
        return config_error(node, NULL, err, "tensor names would be too long");
    inner.no_moe = true;
    inner.int8 = false;
    if (chain_build(&gate->chain, &inner, node, "layers", in, err) != 0)
        return -1;
    if (gate->chain.out.rank != 1 ||
        (!gate->attentive && gate->chain.out_elements != gate->experts))
        return config_error(node, "layers", err, "give %s; expected [%zu], one logit per expert",
                            shape_text(&gate->chain.out, text), gate->experts);
    gate->hidden = gate->chain.out_elements;
    return 0;
}

/* The statistics of a layer's only gate go by the layer's name, those of others by theirs too. */
static int add_info(struct gate *gate, struct build *build, struct config_node *node,
                    const struct layer *layer, const char *name, size_t items_per_row,
                    struct error *err)
{
    char full[MAX_TENSOR_NAME];
    snprintf(full, sizeof full, "%s%s%s", layer->name, *name ? "." : "", name);
    for (size_t i = 0; i < build->gate_count; i++)
        if (strcmp(build->gates[i].name, full) == 0)
            return config_error(*name ? node : node->parent, "name", err,
                                "two MoE layers or gates are called '%s'", full);
    if (build->gate_count == MAX_GATES)
        return config_error(node, NULL, err, "the model has more than %d gates", MAX_GATES);
    build->gates = xrealloc(build->gates, (build->gate_count + 1) * sizeof *build->gates);
    gate->index = build->gate_count++;
    build->gates[gate->index] = (struct moed_gate_info){.name = xstrdup(full),
                                                        .experts = gate->experts,
                                                        .expert_index = gate->expert_index,
                                                        .top_k = gate->top_k,
                                                        .limited = gate->limited,
                                                        .items_per_row = items_per_row};
    return 0;
}

/* What the format gives to each of several gates: a name, and its own view of experts and item. */
static int read_listed(struct gate *gate, struct config_node *node, const struct moed_shape *item,
                       struct moed_shape *in, const char **name, struct error *err)
{
    if (config_text(node, "name", NULL, name, err) != 0)
        return -1;
    if (!**name || !name_is_valid(*name))
        return config_error(node, "name", err, "expected 1 to 64 letters, digits, '_', '-' or '.'");
    if (read_choice(gate, node, gate->experts, err) != 0)
        return -1;
    return slice_read(&gate->input, in, item, node, "input", err);
}

/* Tensors that are the gate's own and no layer's: select_bias, and attention's query and key. */
static int build_own_tensors(struct gate *gate, struct layer *layer, const struct build *build,
                             struct config_node *node, const char *prefix, struct experts *experts,
                             struct error *err)
{
    /* A layer's tensors are <prefix><name>.<suffix>: the last part of our prefix is the name. */
    const char *dot = strrchr(prefix, '.');
    struct layer part = {.op = layer->op, .name = (char *)dot + 1};
    struct build inner = *build;
    memcpy(inner.prefix, prefix, (size_t)(dot + 1 - prefix));
    inner.prefix[dot + 1 - prefix] = '\0';
    inner.int8 = false;
    if (array_build(&gate->select_bias, &part, &inner, "select_bias", &gate->experts, 1, false,
                    err) != 0)
        return -1;
    if (gate->select_bias.values && gate->score->no_bias)
        return config_error(node, "score", err, "'%s' goes with no tensor select_bias",
                            gate->score->name);
    if (gate->attentive && (find_split(gate, node, experts, err) != 0 ||
                            build_attention(gate, &part, &inner, err) != 0))
        return -1;
    layer->parameters += gate->chain.parameters + part.parameters;
    layer->active_parameters += gate->chain.active_parameters + part.active_parameters;
    gate->macs = gate->chain.macs + part.macs;
    layer->weight_bytes += gate->chain.weight_bytes + part.weight_bytes;
    return 0;
}

int gate_build(struct gate *gate, struct layer *layer, struct build *build,
               struct config_node *node, bool listed, const struct moed_shape *item,
               struct experts *experts, struct error *err)
{
    char prefix[MAX_TENSOR_NAME];
    struct moed_shape in;
    const char *name = "";
    gate->experts = experts->count;
    slice_of(&gate->input, &in, item, WHOLE);
    if ((listed && read_listed(gate, node, item, &in, &name, err) != 0) ||
        read_policy(gate, build, node, err) != 0)
        return -1;
    if (listed && gate->attentive)
        return config_error(node, "kind", err, "one gate of several cannot be attentive");
    if (snprintf(prefix, sizeof prefix, "%s%s.%s%s", build->prefix, layer->name,
                 listed ? "gates." : "gate", name) >= (int)sizeof prefix)
        return config_error(node, NULL, err, "tensor names would be too long");
    const size_t items_per_row = layer->in_elements / moed_shape_elements(item);
    if (add_info(gate, build, node, layer, name, items_per_row, err) != 0 ||
        build_layers(gate, build, node, prefix, &in, err) != 0 ||
        build_own_tensors(gate, layer, build, node, prefix, experts, err) != 0)
        return -1;
    return config_done(node, err);
}

void gate_close(struct gate *gate)
{
    chain_close(&gate->chain);
    array_close(&gate->select_bias);
    projection_close(&gate->query);
    projection_close(&gate->key);
    free(gate->expert_index);
}

size_t gate_scratch(const struct gate *gate, size_t item_elements)
{
    const size_t slice = gate->input.elements == item_elements ? 0 : gate->input.elements;
    const size_t attention = gate->attentive ? (2 + gate->experts) * gate->hidden : 0;
    return slice + attention + gate->chain.scratch_per_row;
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
    projection_forward(&gate->query, items, g, query);
    projection_forward(&gate->key, gate->experts * items, hidden, keys);
    const float root = sqrtf((float)h);
    for (size_t item = 0; item < items; item++)
        for (size_t e = 0; e < gate->experts; e++)
            logits[item * gate->experts + e] =
                dot(query + item * h, keys + (e * items + item) * h, h) / root;
}

void gate_logits(const struct gate *gate, const struct run *run, size_t items, size_t item_elements,
                 const float *x, const float *hidden, float *logits)
{
    struct run inner = *run;
    if (gate->input.elements != item_elements) {
        const struct slice *input = &gate->input;
        for (size_t item = 0; item < items; item++)
            memcpy(inner.arena + item * input->elements, x + item * item_elements + input->first,
                   input->elements * sizeof *x);
        x = inner.arena;
        inner.arena += items * input->elements;
    }
    if (gate->attentive)
        attentive_logits(gate, &inner, items, x, hidden, logits);
    else
        chain_forward(&gate->chain, 0, gate->chain.count, &inner, items, x, logits);
}

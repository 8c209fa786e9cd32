/* Building one layer: what all ops have in common is read here, the rest by the op. */
#include "core/layers/layer.h"

#include <stdlib.h>

#include "core/layers/ops.h"

int layer_set_out(struct layer *layer, const struct config_node *node,
                  const struct moed_shape *shape, struct error *err)
{
    char text[SHAPE_TEXT_BYTES];
    if (!shape_count(shape, &layer->out_elements))
        return config_error(node, NULL, err, "a row of shape %s exceeds %d elements",
                            shape_text(shape, text), MAX_ROW_ELEMENTS);
    layer->out = *shape;
    return 0;
}

/* Finds a place in the sessions for what the layer keeps of a sequence. */
static int place_memory(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    const size_t cache_line = 64;
    struct loading *loading = scope->loading;
    struct memory *memory = &layer->memory;
    if (memory->per_sequence == 0 && memory->per_position == 0)
        return 0;
    if (scope->routed)
        return config_error(node, "op", err,
                            "'%s' keeps memory of a sequence, whose rows a gate or an expert does "
                            "not see one after the other",
                            layer->op->name);
    memory->sequence_at = loading->session_bytes;
    memory->position_at = loading->position_bytes;
    loading->session_bytes += (memory->per_sequence + cache_line - 1) / cache_line * cache_line;
    loading->position_bytes += memory->per_position;
    layer->collective = true;
    return 0;
}

int layer_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                const struct moed_shape *in, struct error *err)
{
    struct scope own;
    const char *op, *name;
    if (config_text(node, "op", NULL, &op, err) != 0 ||
        config_text(node, "name", "", &name, err) != 0)
        return -1;
    if (!name_is_valid(name))
        return config_error(node, "name", err,
                            "expected at most 64 letters, digits, '_', '-' or '.'");
    layer->op = op_find(op);
    if (!layer->op)
        return config_error(node, "op", err, "unknown op '%.40s'", op);
    if (layer->op->format > scope->loading->format)
        return config_error(node, "op", err, "'%s' needs \"format_version\": %d", op,
                            layer->op->format);
    layer->name = xstrdup(name);
    layer->in = *in;
    layer->in_elements = moed_shape_elements(in);
    if (scope_enter(&own, scope, node, err, "%s", name) != 0)
        return -1;
    own.op = op;
    own.cost = &layer->cost;
    if (layer->op->build(layer, &own, node, err) != 0 || place_memory(layer, scope, node, err) != 0)
        return -1;
    return config_done(node, err);
}

void layer_close(struct layer *layer)
{
    if (layer->op && layer->op->free)
        layer->op->free(layer);
    free(layer->state);
    free(layer->name);
}

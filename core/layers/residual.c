/* residual: y = x + layers(x). */
#include <string.h>

#include "core/layers/chain.h"
#include "core/layers/ops.h"
#include "core/memory.h"

static int residual_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                          struct error *err)
{
    struct chain *chain = layer->state = xcalloc(1, sizeof *chain);
    char in[SHAPE_TEXT_BYTES], out[SHAPE_TEXT_BYTES];
    /* The residual does not appear in the names of its layers' tensors. */
    struct scope around = scope_around(scope);
    if (chain_build(chain, &around, node, "layers", &layer->in, err) != 0)
        return -1;
    if (!shape_equal(&chain->in, &chain->out))
        return config_error(node, "layers", err, "map %s to %s; a residual must keep the shape",
                            shape_text(&chain->in, in), shape_text(&chain->out, out));
    if (chain->padded != scope->padded)
        return config_error(node, "layers", err, "a residual must keep the padding of its rows");
    layer->padded = scope->padded;
    layer->collective = chain->collective;
    layer->plan = chain->plan;
    layer->cost = chain->cost;
    return layer_set_out(layer, node, &layer->in, err);
}

static void residual_forward(const struct layer *layer, const struct run *run, size_t rows,
                             const float *x, float *y)
{
    const struct chain *chain = layer->state;
    chain_forward(chain, run, rows, x, y);
    for (size_t i = 0; i < rows * layer->in_elements; i++)
        y[i] += x[i];
}

static void residual_free(struct layer *layer)
{
    if (layer->state)
        chain_close(layer->state);
}

static const struct chain *residual_child(const struct layer *layer, size_t index,
                                          const char **role)
{
    *role = "residual";
    return index == 0 ? layer->state : NULL;
}

const struct layer_op op_residual = {.name = "residual",
                                     .padding = PADDING_OWN,
                                     .build = residual_build,
                                     .forward = residual_forward,
                                     .free = residual_free,
                                     .child = residual_child};

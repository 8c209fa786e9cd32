/* What ops ask of the layer they build. */
#include "core/layers/layer.h"

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

int layer_read_axis(const struct layer *layer, struct config_node *node, int64_t otherwise,
                    size_t *axis, struct error *err)
{
    int64_t rank = (int64_t)layer->in.rank, index;
    if (rank == 0)
        return config_error(node, "axis", err, "%s needs at least one axis", layer->op->name);
    if (config_integer(node, "axis", otherwise, within(-rank, rank - 1), &index, err) != 0)
        return -1;
    *axis = (size_t)(index < 0 ? index + rank : index);
    return 0;
}

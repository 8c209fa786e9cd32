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

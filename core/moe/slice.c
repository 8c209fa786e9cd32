/* A slice is contiguous: rows are stored with their last axis innermost. */
#include "core/moe/slice.h"

#include <string.h>

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
    if (config_integer(node, key, CONFIG_REQUIRED, within(0, (int64_t)item->dims[0] - 1), &entry,
                       err) != 0)
        return -1;
    slice_of(slice, shape, item, (size_t)entry);
    return 0;
}

/* What a gate or an expert sees of an item: all of it, or one entry of its first axis. */
#ifndef CORE_SLICE_H
#define CORE_SLICE_H

#include "core/load/config.h"

struct slice {
    size_t first, elements; /* of the item's numbers */
};

#define WHOLE ((size_t)-1)

/* Where the input lies in an item of shape `item`, and its own shape: entry number `entry` of the
 * first axis, or WHOLE. */
void slice_of(struct slice *slice, struct moed_shape *shape, const struct moed_shape *item,
              size_t entry);
/* The same with node[key], the whole when it is not there. */
MUST_CHECK int slice_read(struct slice *slice, struct moed_shape *shape,
                          const struct moed_shape *item, struct config_node *node, const char *key,
                          struct error *err);

#endif

/* Panels: what packed weights are cut into, outputs side by side. */
#ifndef CORE_PANELS_H
#define CORE_PANELS_H

#include <stddef.h>

#include "core/load/tensor.h"

/* Outputs [first, end) of a product: `first` begins a panel, `end` another one, or is n. */
struct columns_of {
    size_t first, end;
};

/* Where a panel keeps an output's number of 16 bits: output i is beside output i + panel / 2, so
 * that a shift and a mask widen both. */
static inline size_t paired_place(size_t output, size_t panel)
{
    return output % (panel / 2) * 2 + output / (panel / 2);
}

/* A cache line. */
enum { PANEL_ALIGNMENT = 64 };

/* Memory for panels at the alignment of cache lines, large ones at that of huge pages; free() it.
 * NULL: there is none. */
void *panels_new(size_t bytes);

/* Says that there is no memory for the tensor's weights. Returns -1. */
int panels_error(const struct tensor *tensor, struct error *err);

#endif

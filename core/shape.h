/* Shapes of rows: comparing, counting and printing them. Private to core/. */
#ifndef CORE_SHAPE_H
#define CORE_SHAPE_H

#include "core/moed.h"
#include "core/text.h"

/* Bounds one row of an activation: 64 M numbers (256 MB) is more than any served layer has, and a
 * shape of 10^18 is stopped before it is multiplied into an allocation. */
enum { MAX_ROW_ELEMENTS = 1 << 26 };

bool shape_equal(const struct moed_shape *a, const struct moed_shape *b);

/* Sets `elements`; false if they exceed MAX_ROW_ELEMENTS. */
bool shape_count(const struct moed_shape *shape, size_t *elements);

/* "[1, 28, 28]" for messages. Returns `text`. */
const char *shape_text(const struct moed_shape *shape, char text[SHAPE_TEXT_BYTES]);

static inline size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif

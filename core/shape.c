/* A shape holds at most MOED_MAX_RANK sizes of one row; the batch axis is never part of it. */
#include "core/shape.h"

#include <string.h>

#include "core/text.h"

size_t moed_shape_elements(const struct moed_shape *shape)
{
    size_t elements = 1;
    for (size_t i = 0; i < shape->rank; i++)
        elements *= shape->dims[i];
    return elements;
}

bool shape_equal(const struct moed_shape *a, const struct moed_shape *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0;
}

bool shape_count(const struct moed_shape *shape, size_t *elements)
{
    *elements = 1;
    for (size_t i = 0; i < shape->rank; i++)
        if (__builtin_mul_overflow(*elements, shape->dims[i], elements) ||
            *elements > MAX_ROW_ELEMENTS)
            return false;
    return true;
}

const char *shape_text(const struct moed_shape *shape, char text[SHAPE_TEXT_BYTES])
{
    return text_of_shape(text, NULL, shape->dims, shape->rank, ", ");
}

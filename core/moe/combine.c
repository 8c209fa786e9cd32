/* Results are added in the order of the gate's choice, so that an item's bits do not depend on
 * where its pairs were sorted to. */
#include "core/moe/combine.h"

#include <string.h>

#include "core/dense/vector.h"

/* One gate's sum for one item; weight, position: [slots] best first. weight NULL: 1. */
static inline void combine_item(const float *weight, const uint32_t *position, size_t slots,
                                size_t elements, const float *out, float *y)
{
    bool empty = true;
    for (size_t slot = 0; slot < slots; slot++) {
        if (position[slot] == NOWHERE)
            continue;
        const float *result = out + position[slot] * elements;
        const float factor = weight ? weight[slot] : 1.0f;
        for (size_t i = 0; i < elements; i++)
            y[i] = (empty ? 0.0f : y[i]) + factor * result[i];
        empty = false;
    }
    if (empty)
        memset(y, 0, elements * sizeof *y);
}

VECTORIZED void combine(const struct routing *routing, size_t gate_count,
                        const struct dispatch *dispatch, size_t elements, const float *out,
                        float *y)
{
    const uint32_t *position = dispatch->position;
    for (size_t gate = 0; gate < gate_count; gate++) {
        const struct moed_routing *decisions = &routing[gate].decisions;
        const size_t k = decisions->top_k;
        for (size_t item = 0; item < decisions->items; item++)
            combine_item(dispatch->input_weight ? NULL : decisions->weight + item * k,
                         position + item * dispatch->slots, k, elements, out,
                         y + (item * gate_count + gate) * elements);
        position += k;
    }
}

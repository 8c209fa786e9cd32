/* Adding the experts' results back: the last step of the MoE layer. */
#include <string.h>

#include "core/dense/vector.h"
#include "core/moe/moe.h"

VECTORIZED void combine(const struct moed_routing *routing, const struct dispatch *dispatch,
                        size_t first_slot, size_t elements, size_t pitch, const float *out,
                        float *y)
{
    for (size_t item = 0; item < routing->items; item++, y += pitch) {
        const uint32_t *position = dispatch->position + item * dispatch->slots + first_slot;
        const float *weight = routing->weight + item * routing->top_k;
        bool empty = true;
        for (size_t slot = 0; slot < routing->top_k; slot++) {
            if (position[slot] == NOWHERE)
                continue;
            const float *result = out + position[slot] * elements;
            for (size_t i = 0; i < elements; i++)
                y[i] = (empty ? 0.0f : y[i]) + weight[slot] * result[i];
            empty = false;
        }
        if (empty)
            memset(y, 0, elements * sizeof *y);
    }
}

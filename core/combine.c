/* Adding the experts' results back: the last step of the MoE layer. */
#include "moe.h"

void combine(const struct run *run, const struct routing *routing, size_t elements,
             const float *out, float *y)
{
    (void)run;
    for (size_t item = 0; item < routing->items; item++, y += elements) {
        const uint32_t *position = routing->position + item * routing->top_k;
        const float *weight = routing->weight + item * routing->top_k;
        for (size_t slot = 0; slot < routing->top_k; slot++) {
            const float *result = out + position[slot] * elements;
            for (size_t i = 0; i < elements; i++)
                y[i] = (slot ? y[i] : 0.0f) + weight[slot] * result[i];
        }
    }
}

/* Adding the experts' results back: the last step of the MoE layer. */
#ifndef CORE_COMBINE_H
#define CORE_COMBINE_H

#include "core/moe/dispatch.h"

/* y: [items, gate_count, elements] of out: [pairs, elements]. What each gate makes of the results
 * for an item: the sum over its choice, best first, of weight * result; 0 where all were dropped.
 */
void combine(const struct routing *routing, size_t gate_count, const struct dispatch *dispatch,
             size_t elements, const float *out, float *y);

#endif

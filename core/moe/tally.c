/* The sums of one forward that become the routing statistics; see moe.h. Beside the layer, not in
 * it: a program that defines these three functions itself runs without them, which is how the
 * benchmark measures what they cost. */
#include <string.h>

#include "core/dense/vector.h"
#include "core/moe/moe.h"

void tally_reset(struct routing *routing)
{
    const size_t experts = routing->experts;
    memset(routing->selected, 0, experts * sizeof *routing->selected);
    memset(routing->top1, 0, experts * sizeof *routing->top1);
    memset(routing->weight_sum, 0, experts * sizeof *routing->weight_sum);
    memset(routing->probability_sum, 0, experts * sizeof *routing->probability_sum);
    routing->entropy_sum = 0;
}

VECTORIZED void tally_item(struct routing *routing, int32_t best, float entropy_nats)
{
    const double bits_per_nat = 1.4426950408889634;
    routing->top1[best]++;
    for (size_t e = 0; e < routing->experts; e++)
        routing->probability_sum[e] += (double)routing->probability[e];
    routing->entropy_sum += (double)entropy_nats * bits_per_nat;
}

void tally_selections(struct routing *routing)
{
    for (size_t pair = 0; pair < routing->items * routing->top_k; pair++) {
        const int32_t expert = routing->expert[pair];
        if (expert < 0)
            continue;
        routing->selected[expert]++;
        routing->weight_sum[expert] += routing->weight[pair];
    }
}

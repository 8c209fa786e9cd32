/* In place of core/tally.c: a forward without statistics. */
#include "core/moe.h"

void tally_reset(struct routing *routing)
{
    (void)routing;
}

void tally_item(struct routing *routing, int32_t best, float entropy_nats)
{
    (void)routing;
    (void)best;
    (void)entropy_nats;
}

void tally_selections(struct routing *routing)
{
    (void)routing;
}

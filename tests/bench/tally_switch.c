/* core/moe/tally.c behind a switch; see tally_switch.h. Its functions are taken in under other
 * names, and these stand in their place. */
#include "tally_switch.h"

#define tally_reset      counted_reset
#define tally_item       counted_item
#define tally_selections counted_selections
#include "core/moe/tally.c"
#undef tally_reset
#undef tally_item
#undef tally_selections

void tally_reset(struct routing *routing);
void tally_item(struct routing *routing, int32_t best, float entropy_nats);
void tally_selections(struct routing *routing);

bool tally_switch = true;

void tally_reset(struct routing *routing)
{
    if (tally_switch)
        counted_reset(routing);
}

void tally_item(struct routing *routing, int32_t best, float entropy_nats)
{
    if (tally_switch)
        counted_item(routing, best, entropy_nats);
}

void tally_selections(struct routing *routing)
{
    if (tally_switch)
        counted_selections(routing);
}

/* Routing statistics on and off in one process, with the same weights at the same addresses: where
 * they lie makes more of a difference than what statistics cost. */
#ifndef BENCH_TALLY_SWITCH_H
#define BENCH_TALLY_SWITCH_H

#include <stdbool.h>

/* Whether forwards of this program sum up statistics; as long as nobody says otherwise, they do. */
extern bool tally_switch;

#endif

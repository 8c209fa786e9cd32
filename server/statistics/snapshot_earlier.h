/* What earlier versions of snapshots had in place of what counts are now. */
#ifndef SERVER_SNAPSHOT_EARLIER_H
#define SERVER_SNAPSHOT_EARLIER_H

#include "server/statistics/history.h"

/* Before version 7 experts had the sum of the absolute weights in place of the sum of parts. It
 * becomes parts here: all of the totals, of which each item has one to give, in the proportions of
 * the weights. The history has the totals' scale, so that windows stay differences of sums that do
 * not fall. totals may be NULL. */
void snapshot_make_parts(struct history *history, struct tally *totals);

#endif

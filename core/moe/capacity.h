/* What becomes of choices where experts serve only so many items of a group. */
#ifndef CORE_CAPACITY_H
#define CORE_CAPACITY_H

#include "core/layers/layer.h"
#include "core/moe/policy.h"
#include "core/moe/routing.h"

/* Drops the pairs that find no place among those of their group: expert -1, weight 0. Items are
 * those of run's spans, in order. */
void limit_items(const struct gate_policy *policy, const struct run *run, struct routing *routing);

#endif

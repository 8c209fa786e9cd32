/* The gate's decision about every item. */
#ifndef CORE_SELECT_H
#define CORE_SELECT_H

#include "core/moe/gate.h"
#include "core/moe/routing.h"

/* Chooses and weighs experts for every item, which are those of run's spans, in order. Fills
 * routing->decisions, overwrites `logits`. NaN and infinite logits are clamped: the choice is
 * always of top_k distinct experts, and every number stays finite whatever a client sends. */
void gate_select(const struct gate *gate, const struct run *run, size_t items, float *logits,
                 struct routing *routing);

#endif

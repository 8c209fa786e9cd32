/* What one gate decided, counted over any routed items: those of a batch, a request, a tag, a
 * window. Plain numbers without a tensor behind them: counts of loops and replicas add up, and what
 * happened in a window is now minus then.
 *
 * A new statistic takes three places: a field here, the lines in gate_counts.c that count, add and
 * subtract it, and its reader in proto/routing.c. */
#ifndef CORE_GATE_COUNTS_H
#define CORE_GATE_COUNTS_H

#include <stddef.h>
#include <stdint.h>

struct moed_routing; /* core/moed.h */

struct moed_expert_counts {
    uint64_t selected;  /* items that the expert served */
    uint64_t top1;      /* items whose best expert it was, dropped ones too */
    double weight;      /* sum of the combine weights given to it */
    double probability; /* sum over items of p, the gate's distribution over all experts */
};

struct moed_gate_counts {
    size_t experts;
    uint64_t items;
    uint64_t dropped; /* selections that found no place within an expert's capacity */
    double entropy;   /* bits: sum over items of -sum_i p_i log2 p_i */
    double margin;    /* sum over items of p(1st) - p(2nd) */
    struct moed_expert_counts expert[]; /* [experts] by the gate's own indices */
};

/* All zero, in one allocation. The caller frees it. Aborts without memory: experts are bounded. */
struct moed_gate_counts *moed_gate_counts_new(size_t experts);
void moed_gate_counts_free(struct moed_gate_counts *counts);
void moed_gate_counts_reset(struct moed_gate_counts *counts);

/* Counts items [first, end) of what a gate decided, in order. Entropy, margin and probability stay
 * as they are if the forward did not keep its distributions (struct moed_scratch_options). */
void moed_gate_counts_count(struct moed_gate_counts *counts, const struct moed_routing *routing,
                            size_t first, size_t end);

/* to += from; from -= then. Of as many experts. Integers are exact, also modulo 2^64. */
void moed_gate_counts_add(struct moed_gate_counts *to, const struct moed_gate_counts *from);
void moed_gate_counts_subtract(struct moed_gate_counts *from, const struct moed_gate_counts *then);

#endif

/* Counts of one gate's decisions over any routed items: those of a batch, a request, a tag or a
 * window. They are plain integers without a tensor behind them: the counts of loops and replicas
 * add up exactly, in any order, and those of a window are exactly the counts now minus the counts
 * then.
 *
 * Sums of fractions are integers, too, in units of 2^-32: each item's share is rounded to a unit,
 * so that a mean is off by 1.2e-10 at most, a sum of what is not negative never falls, and no sum
 * depends on how items were batched. 128 bits never overflow.
 *
 * A new statistic takes three places: a field here, the lines in gate_counts.c that count and add
 * it, and its reader in proto/routing.c. */
#ifndef CORE_GATE_COUNTS_H
#define CORE_GATE_COUNTS_H

#include <stddef.h>
#include <stdint.h>

struct moed_routing; /* core/moed.h */

/* Of margins and entropies: equal parts of [0, 1] and of [0, log2 experts], upper ends included in
 * the next part but for the last. */
enum { MOED_HISTOGRAM_PARTS = 20 };

struct moed_expert_counts {
    uint64_t selected;    /* items that the expert served */
    uint64_t top1;        /* items that ranked it first, dropped ones included */
    uint64_t dropped;     /* items that chose it and found no place within its capacity */
    uint64_t last;        /* the latest `now` at which it served one; 0: never */
    __int128 weight;      /* sum of the combine weights given to it */
    __int128 part;        /* sum over items of its part of the item's absolute combine weights */
    __int128 probability; /* sum over items of p, the gate's distribution over all experts */
    __int128 seconds;     /* that it took to serve those it served */
};

struct moed_gate_counts {
    size_t experts;
    uint64_t items;
    uint64_t intervened; /* further items, routed as their request asked: in nothing else */
    uint64_t overflowed; /* items with a combine weight beyond 2^19, or NaN: their weights are in no
                            sum */
    __int128 entropy;    /* bits: sum over items of -sum_i p_i log2 p_i */
    __int128 margin;     /* sum over items of p(1st) - p(2nd) */
    uint64_t entropies[MOED_HISTOGRAM_PARTS], margins[MOED_HISTOGRAM_PARTS];
    struct moed_expert_counts expert[]; /* [experts] by the gate's own indices */
};

/* A sum as a number. */
double moed_sum_value(__int128 sum);

/* The nearest sum. A number beyond 2^19 counts as 2^19, NaN as -2^19. */
__int128 moed_sum_of(double value);

/* Returns counts that are all zero, in one allocation that the caller frees. Aborts if out of
 * memory: the number of experts is bounded. */
struct moed_gate_counts *moed_gate_counts_new(size_t experts);
void moed_gate_counts_free(struct moed_gate_counts *counts);

/* Counts items [first, end) of a gate's decisions at time `now`, in any unit and from any origin.
 * Sums over distributions do not change if the forward pass kept none (struct
 * moed_scratch_options). An item with a combine weight beyond 2^19 is `overflowed` and adds to no
 * sum of weights. Inputs without bounds make huge weights where a gate does not normalize them, and
 * one such item would drown a million others in a sum of weights: therefore shares are made of
 * parts, of which every item has 1 to give. */
void moed_gate_counts_count(struct moed_gate_counts *counts, const struct moed_routing *routing,
                            size_t first, size_t end, uint64_t now);

/* A copy of what was decided for one item, to be counted when the forward pass is long gone: all of
 * it side by side in memory, in so many bytes, a multiple of 8. */
size_t moed_gate_record_bytes(size_t experts, size_t top_k);

/* Of an item that was routed, by a forward pass that has kept distributions. */
void moed_gate_record_write(void *record, const struct moed_routing *routing, size_t item);

/* [top_k] as in struct moed_routing. */
const int32_t *moed_gate_record_choice(const void *record, size_t top_k);

/* Records of items that were routed one after the other. Of each the record and the time are so
 * many bytes, a multiple of 8, behind those of the one before. */
struct moed_gate_records {
    const void *first;
    const uint64_t *time;
    size_t pitch, count;
};

/* The same as counting each item by itself. */
void moed_gate_counts_count_records(struct moed_gate_counts *counts, size_t top_k,
                                    const struct moed_gate_records *records);

/* Counts the same items as routed otherwise than the gate decides (core/intervention.h). */
void moed_gate_counts_count_intervened(struct moed_gate_counts *counts,
                                       const struct moed_routing *routing, size_t first,
                                       size_t end);

/* to += from; from -= then. Both have the same number of experts. An expert's `last` is the later
 * one. */
void moed_gate_counts_add(struct moed_gate_counts *to, const struct moed_gate_counts *from);
void moed_gate_counts_subtract(struct moed_gate_counts *from, const struct moed_gate_counts *then);

#endif

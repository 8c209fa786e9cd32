/* How much the use of experts differs between two samples of traffic. Pure functions. */
#ifndef PROTO_ROUTING_DRIFT_H
#define PROTO_ROUTING_DRIFT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/gate_counts.h"

/* Shares p_i of the experts, of the selections or the weights, that add up to 1 or, with items 0,
 * to nothing; and how many items n they were counted over. */
struct routing_sample {
    const double *share; /* [experts]; borrowed */
    double items;
};

/* What counts say: shares of the selections or, if `dense`, of the weights. share: [experts] room
 * for them. */
struct routing_sample routing_sample_of(const struct moed_gate_counts *counts, bool dense,
                                        double *share);

struct routing_drift {
    /* Jensen-Shannon divergence, in [0, 1] bits: H((p + q) / 2) - (H(p) + H(q)) / 2. */
    double js_bits;
    /* Population stability index: sum_i (p'_i - q'_i) ln(p'_i / q'_i), with half an item added to
     * every expert of both, p'_i = (p_i n + 1/2) / (n + experts / 2), so that it stays finite. By
     * custom 0.1 is small and 0.25 large. */
    double psi;
    /* How likely samples of one and the same distribution differ as much: the G-test of
     * homogeneity, chi-square with cells - 1 degrees of freedom. p_i n stands for the items of
     * expert i, which is exact for one expert per item, and errs on the side of no drift for
     * several or for weights. Experts with fewer than 5 expected items in the smaller sample
     * share a cell. Items are taken to be independent. */
    double p_value;
    bool tested; /* false: too few items for two cells, and p_value is 1 */
};

/* False, and *drift is left alone, when there is nothing to compare: either is without items. */
bool routing_drift_of(size_t experts, const struct routing_sample *sample,
                      const struct routing_sample *other, struct routing_drift *drift);

#endif

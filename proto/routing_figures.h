/* What the counts of one gate say: formulas and their units, one place for the JSON document and
 * the metrics. Pure functions.
 *
 * With n experts: s_i is the share of expert i in all selections, w_i the mean over the items of
 * its part of the item's absolute combine weights, pbar_i that of p_i, the gate's distribution. */
#ifndef PROTO_ROUTING_FIGURES_H
#define PROTO_ROUTING_FIGURES_H

#include <stdbool.h>

#include "core/gate_counts.h"

/* Before the first item every figure is 0 and `unused` is n. Entropies lie in [0, log2 n] bits;
 * ratios have no unit. */
struct routing_figures {
    double usage_entropy_bits; /* -sum_i pbar_i log2 pbar_i */
    double gate_entropy_bits;  /* mean over the items of -sum_i p_i log2 p_i */
    double margin;             /* mean over the items of p(1st) - p(2nd), in [0, 1] */
    double imbalance;          /* max s / mean s, in [1, n] */
    double weight_imbalance;   /* max w / mean w, in [1, n] */
    double balancedness;       /* mean s / max s, in [1/n, 1] */
    double cv;                 /* population standard deviation of s / mean s */
    double jain;               /* (sum s)^2 / (n sum s^2), in [1/n, 1] */
    double effective_experts;  /* 2^(-sum_i w_i log2 w_i), in [1, n] */
    size_t unused;             /* experts never selected */
};

struct routing_figures routing_figures_of(const struct moed_gate_counts *counts);

/* Selections, by all experts, that found no place within an expert's capacity. */
uint64_t routing_dropped(const struct moed_gate_counts *counts);

/* s_i and w_i by expert; all 0 when nothing was selected. out: [experts]. */
void routing_shares(const struct moed_gate_counts *counts, double *out);
void routing_weight_shares(const struct moed_gate_counts *counts, double *out);

/* Whether an expert that was used earlier is used no more in `recent`, beyond chance: had its rate
 * not changed, so few of its items would lie among the recent ones with a probability below 1/1000
 * in any of the n experts (Fisher's exact test, one-sided, Bonferroni over the experts; items are
 * taken to be independent). Not used means no selection at all. A dense gate selects every expert
 * always: there, it means less than a tenth of its earlier share of the weight, w_i x items
 * standing for selections. */
bool routing_is_dying(const struct moed_gate_counts *earlier, const struct moed_gate_counts *recent,
                      bool dense, size_t expert);

#endif

/* A MoE layer of a routing document: counts as they were read, and the figures that follow from
 * them. What the document leaves out is NAN (numbers) or 0 (counts). */
#ifndef MOECTL_LAYER_H
#define MOECTL_LAYER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "clients/c/moectl/support.h"

struct expert {
    uint64_t index, selected, top1, dropped;
    double share;           /* selected / (rows x top_k) */
    double weight;          /* sum of combine weights */
    double weight_share;    /* as the document has it; else |weight| / sum of |weight| */
    double probability;     /* sum of the gate's distribution */
    double reference_share; /* what the checkpoint expects */
    double idle_seconds;
    double chosen; /* rows that chose it, of those whose pairs are counted; NAN: not known */
    double labelled, accuracy, log_loss, ece;
};

struct layer {
    char *name; /* printable */
    uint64_t rows, dropped, overflowed;
    double routed; /* rows whose pairs are counted, in any window since the load; NAN: not known */
    size_t top_k, expert_count;
    struct expert *experts;
    bool dense;    /* the gate uses every expert for every row: only weights tell them apart */
    bool weighted; /* every expert has a weight */
    double usage_entropy_bits, gate_entropy_bits, margin;
    double imbalance, weight_imbalance, balancedness, cv, jain, effective_experts;
    size_t unused;
    json_t *json; /* borrowed from the document: what is shown only by some */
};

/* Fills in everything that follows from the layer's counts. A layer without rows has 0 for all of
 * it. */
void layer_derive(struct layer *layer);

/* The part of the traffic that an expert carries: its share, of a dense gate its weight share. */
double expert_load(const struct layer *layer, const struct expert *expert);

/* Indices into layer->experts, the largest load first; the caller frees. */
size_t *layer_ranking(const struct layer *layer);

/* Why an expert is in quarantine, by an entry of the layer's "quarantine"; the caller frees. */
char *quarantine_reason(const json_t *entry);

#endif

/* GET /v2/models/M/routing: per-expert routing statistics as JSON, and the formulas behind them.
 * The same plain structs feed the Prometheus page. */
#ifndef PROTO_ROUTING_H
#define PROTO_ROUTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gate_counts.h"
#include "proto/buffer.h"

/* What the wire calls a layer: a gate, and what was counted of its decisions. All borrowed. */
struct routing_layer {
    const char *name;
    size_t top_k;
    const int32_t *expert_index; /* [experts] what the layer calls them; NULL: 0, 1, 2, ... */
    bool limited;                /* experts have a capacity: selections may be dropped */
    const struct moed_gate_counts *counts;
};

/* What one layer's counts say. Before the first row every value is 0 (imbalance too) and `unused`
 * is the number of experts. */
struct routing_summary {
    double usage_entropy_bits; /* -sum_i pbar_i log2 pbar_i, pbar the mean of p over rows */
    double gate_entropy_bits;  /* mean over rows of -sum_i p_i log2 p_i */
    double imbalance;          /* max share / mean share */
    size_t unused;             /* experts never selected */
};

/* The layer's index of expert i. */
size_t routing_expert_index(const struct routing_layer *layer, size_t i);

struct routing_summary routing_summarize(const struct routing_layer *layer);

void routing_document(const char *model, const char *version, const struct routing_layer *layers,
                      size_t layer_count, struct buffer *body);

#endif

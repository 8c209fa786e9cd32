/* GET /v2/models/M/routing: per-expert routing statistics as JSON, and the formulas behind them.
 * The same plain structs feed the Prometheus page. */
#ifndef PROTO_ROUTING_H
#define PROTO_ROUTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

/* Sums over everything a layer has routed. Borrowed arrays are [experts]. */
struct routing_totals {
    const char *layer;
    size_t experts, top_k;
    const int32_t *expert_index; /* [experts] what the layer calls them; NULL: 0, 1, 2, ... */
    bool limited;                /* experts have a capacity: selections may be dropped */
    uint64_t rows;               /* routed items */
    uint64_t dropped;            /* of their selections */
    const uint64_t *selected, *top1;
    const double *weight_sum;
    const double *probability_sum;
    double entropy_sum; /* bits */
};

/* What one layer's sums say. Before the first row every value is 0 (imbalance too) and `unused` is
 * the number of experts. */
struct routing_summary {
    double usage_entropy_bits; /* -sum_i pbar_i log2 pbar_i, pbar the mean of p over rows */
    double gate_entropy_bits;  /* mean over rows of -sum_i p_i log2 p_i */
    double imbalance;          /* max share / mean share */
    size_t unused;             /* experts never selected */
};

/* The layer's index of expert i. */
size_t routing_expert_index(const struct routing_totals *totals, size_t i);

struct routing_summary routing_summarize(const struct routing_totals *totals);

void routing_document(const char *model, const char *version, const struct routing_totals *layers,
                      size_t layer_count, struct buffer *body);

#endif

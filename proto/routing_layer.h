/* What the routing document says of a model: the counts of its gates and what they are compared
 * with. */
#ifndef PROTO_ROUTING_LAYER_H
#define PROTO_ROUTING_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gate_counts.h"
#include "proto/routing_detail.h"
#include "proto/routing_drift.h"
#include "proto/routing_quality.h"

/* A gate and the counts of its decisions; clients know it as a layer. All borrowed. */
struct routing_layer {
    const char *name;
    size_t top_k;
    const int32_t *expert_index; /* [experts] their indices in the layer; NULL: 0, 1, 2, ... */
    bool limited;                /* experts have a capacity: selections may be dropped */
    const struct moed_gate_counts *counts; /* in the window */
    const struct routing_detail *detail;   /* since the load; NULL unless something is included */
    const char *const *class_labels;       /* [detail->classes]; NULL: they have no names */
    const struct routing_quality *quality; /* [experts] in the window; NULL: no labels */
    /* In the last five minutes, and in the rest of the hour; they tell which experts are dying. */
    const struct moed_gate_counts *recent, *earlier;
    const struct moed_gate_counts *before; /* in the window before */
    struct routing_sample reference;       /* of known-good data; without items: none */
    const char *quarantine;                /* JSON: a list of its experts there; NULL: none */
    const bool *quarantined;               /* [experts] the same; NULL: none */
    /* Of models of sequences, since the load: what tokens of prompts chose in each step, and what
     * generated ones did; NULL: as `detail`, and of other models. */
    const struct routing_detail *prompt, *generated;
    uint64_t expert_bytes; /* of one expert's weights */
};

struct routing_document {
    const char *model, *version, *window;
    double seconds;          /* spanned by the window */
    uint64_t rows;           /* counted in it */
    uint64_t now;            /* ns; of the same clock as the experts' `last` */
    const char *const *tags; /* [tag_count] seen so far */
    size_t tag_count;
    const struct routing_layer *layers; /* [layer_count] */
    size_t layer_count;
    unsigned include; /* routing_include.h */
    /* Of models of sequences: bytes of weights that every step reads, whatever experts it needs. */
    uint64_t shared_bytes;
};

/* Whether every expert serves every item. */
static inline bool routing_is_dense(const struct routing_layer *layer)
{
    return layer->top_k == layer->counts->experts;
}

/* The index in the layer of a gate's expert i; expert_index: as above. */
static inline size_t routing_expert_index(const int32_t *expert_index, size_t i)
{
    return expert_index ? (size_t)expert_index[i] : i;
}

#endif

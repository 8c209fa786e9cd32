/* GET /v2/models/M/routing: per-expert routing statistics as JSON. */
#ifndef PROTO_ROUTING_H
#define PROTO_ROUTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gate_counts.h"
#include "proto/buffer.h"
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
    unsigned include; /* routing_include_read() */
};

/* Whether every expert serves every item. */
bool routing_is_dense(const struct routing_layer *layer);

/* The index in the layer of the gate's expert i. */
size_t routing_expert_index(const struct routing_layer *layer, size_t i);

void routing_write(const struct routing_document *document, struct buffer *body);

/* What a live view needs of it, in at most `max_bytes`: of each layer its figures and one share for
 * each expert, of the selections or, if the gate is dense, of the weight. Layers that do not fit
 * are left out and counted. */
void routing_write_live(const struct routing_document *document, size_t max_bytes,
                        struct buffer *body);

#endif

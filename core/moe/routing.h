/* What one gate decides in a forward. Private to core/. */
#ifndef CORE_ROUTING_H
#define CORE_ROUTING_H

#include <float.h>

#include "core/moed.h"

struct placing;

/* Lives in the scratch. */
struct routing {
    uint64_t bytes;                /* allocated */
    struct moed_routing decisions; /* what moed_routing() hands out; points to the arrays below */
    int32_t *expert, *choice;
    float *weight;
    float *probability, *entropy, *margin; /* NULL: distributions are not kept */
    /* One item's working memory. */
    float *scores, *keys, *p; /* [experts] */
    uint32_t *places;         /* [experts] taken of each expert's capacity */
    /* Of a gate with a capacity, else NULL. */
    float *score;         /* [items, top_k] of what was chosen */
    struct placing *line; /* [items, top_k] in the order in which pairs are placed */
};

/* A pair that waits for a place. */
struct placing {
    float score;
    uint32_t pair; /* item * top_k + slot */
};

MUST_CHECK int routing_init(struct routing *routing, const struct moed_gate_info *info,
                            size_t max_items, bool distributions, struct error *err);
void routing_close(struct routing *routing);

/* Weights and scores stay finite, whatever a client sends: NaN becomes the least number. */
static inline void clamp_finite(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const float value = values[i] > FLT_MAX ? FLT_MAX : values[i];
        values[i] = value >= -FLT_MAX ? value : -FLT_MAX; /* NaN is not */
    }
}

#endif

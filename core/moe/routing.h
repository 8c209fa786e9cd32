/* What one gate decides in a forward. Private to core/. */
#ifndef CORE_ROUTING_H
#define CORE_ROUTING_H

#include "core/moed.h"

/* Lives in the scratch. */
struct routing {
    struct moed_routing decisions; /* what moed_routing() hands out; points to the arrays below */
    int32_t *expert, *choice;
    float *weight;
    float *probability, *entropy, *margin; /* NULL: distributions are not kept */
    /* One item's working memory. */
    float *scores, *keys, *p; /* [experts] */
    uint32_t *places;         /* [experts] taken of each expert's capacity */
};

MUST_CHECK int routing_init(struct routing *routing, const struct moed_gate_info *info,
                            size_t max_items, bool distributions, struct error *err);
void routing_close(struct routing *routing);

#endif

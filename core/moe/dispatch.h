/* The pairs of one MoE layer, sorted by expert. Private to core/. */
#ifndef CORE_DISPATCH_H
#define CORE_DISPATCH_H

#include "core/layers/layer.h"
#include "core/layers/scope.h"
#include "core/moe/routing.h"
#include "core/moe/timing.h"

/* Pairs sorted by expert, within an expert by item; lives in the scratch. */
struct dispatch {
    uint64_t bytes; /* allocated */
    size_t items, experts;
    size_t slots;            /* selections per item: those of the first gate, of the second, ... */
    uint32_t *first;         /* [experts + 1] first position of each expert's pairs */
    uint32_t *item;          /* [items * slots] the item at each position */
    uint32_t *position;      /* [items, slots] where each selection's pair went; NOWHERE: dropped,
                                or silenced */
    uint32_t *last_item;     /* [experts] the last item that was placed, plus one, */
    uint32_t *last_position; /* [experts] and where */
    struct expert_task *tasks; /* [items * slots] */
    /* [items * slots] what multiplies the input at each position; NULL: weights multiply outputs */
    float *input_weight;
    struct timing timing;
};

#define NOWHERE UINT32_MAX

/* `timed`: what the experts take is to be known. */
MUST_CHECK int dispatch_init(struct dispatch *dispatch, const struct moe_sizes *sizes,
                             size_t max_items, bool timed, struct error *err);
void dispatch_close(struct dispatch *dispatch);

/* Sorts what the layer's gates, from `first_gate` of the model on, decided for the same items. */
void dispatch_pairs(struct dispatch *dispatch, const struct run *run, size_t first_gate,
                    size_t gate_count);

#endif

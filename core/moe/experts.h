/* The experts of a MoE layer: a chain of layers each. */
#ifndef CORE_EXPERTS_H
#define CORE_EXPERTS_H

#include "core/layers/chain.h"
#include "core/moe/dispatch.h"
#include "core/moe/slice.h"

/* Bounds the routing arrays of one layer; the largest published models have 512. */
enum { MAX_EXPERTS = 4096 };

struct experts {
    size_t count, total;   /* built so far; in the end all */
    size_t identities;     /* the last ones, which give what they are given; never all */
    struct chain *chains;  /* [count], all of the same output */
    struct slice *inputs;  /* [count] what of the item each one sees */
    size_t split;          /* layers [0, split) run for all items before the gate; 0: none */
    size_t split_elements; /* of a row between the two parts */
    size_t item_elements;
    struct plan each; /* for each row of any of them */
    /* Places for each item: of the layers before the split; of what pairs read; of their layers. */
    size_t front, gathered, back;
};

/* Builds the layer's "experts" for items of shape `item`. */
MUST_CHECK int experts_build(struct experts *experts, const struct scope *scope,
                             struct config_node *node, const struct moed_shape *item,
                             bool routes_positions, struct error *err);

/* Cuts every expert in two behind its layer `last`: a gate needs what that gives for all items. */
void experts_split(struct experts *experts, size_t last);
void experts_close(struct experts *experts);

/* Plans scratch for each item: of experts_front(), then of experts_forward() for `slots` pairs. */
void experts_plan_front(struct experts *experts, struct plan *plan);
void experts_plan(struct experts *experts, struct plan *plan, size_t slots);

/* Layers [0, split) of every expert over every item: hidden [experts, items, split_elements]. */
void experts_front(const struct experts *experts, const struct run *run, size_t items,
                   const float *x, float *hidden);

/* The layers from split on of every active expert over its pairs: out [pairs, out] by position.
 * Fills dispatch->tasks. Reads x [items, item_elements], or hidden (see experts_front) when
 * split > 0. */
void experts_forward(const struct experts *experts, const struct run *run,
                     struct dispatch *dispatch, const float *x, const float *hidden, float *out);

#endif

/* A gate as it is configured and as it scores: one logit per expert for every item. */
#ifndef CORE_GATE_H
#define CORE_GATE_H

#include "core/layers/projection.h"
#include "core/moe/experts.h"
#include "core/moe/policy.h"

/* Each has a name that no other may have and statistics of its own: a small config.json with a
 * hundred thousand of them would load for minutes. The largest models have about a hundred. */
enum { MAX_GATES = 1024 };

struct gate {
    struct chain chain; /* item -> logits [experts], or hidden vector g [hidden] when attentive */
    struct slice input; /* what of the item the gate sees */
    size_t item_elements;
    struct plan plan;                                 /* for each item */
    size_t sliced, hidden_out, queries, keys, layers; /* places */
    size_t index; /* among the model's gates, in order of execution */
    struct gate_policy policy;
    int32_t *expert_index;     /* [experts] the layer's index of each; NULL: the same. Owned */
    struct cost cost;          /* for one item */
    struct array select_bias;  /* [experts]; added to scores for the choice only */
    struct array expert_scale; /* [experts]; multiplies each expert's weights */
    /* kind "attentive": logits_i = (Wq g) . (Wk e_i) / sqrt(hidden), e_i the output of expert i's
     * layer `key_layer`. Keys need every expert's first layers, so those run for every item. */
    bool attentive;
    size_t hidden;
    size_t key_layer;             /* its index */
    struct projection query, key; /* Wq, Wk: [hidden, hidden] */
};

/* What the gates of one MoE layer have in common. */
struct gated {
    const char *layer;      /* its name */
    struct moed_shape item; /* what they route */
    size_t items_per_row;
    bool listed; /* they are entries of "gates", with names of their own */
    const struct experts *experts;
};

/* Builds a gate from `node`, in the scope of its layer, whose experts are built already. */
MUST_CHECK int gate_build(struct gate *gate, const struct scope *scope, struct config_node *node,
                          const struct gated *gated, struct error *err);
void gate_close(struct gate *gate);

/* logits: [items, experts] of x: [items, item_elements]. With `hidden` [experts, items, hidden] for
 * an attentive gate. */
void gate_logits(const struct gate *gate, const struct run *run, size_t items, const float *x,
                 const float *hidden, float *logits);

#endif

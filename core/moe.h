/* The MoE layer, step by step. Private to core/.
 *
 *     gate -> select -> dispatch -> experts -> combine
 *
 * gate.c      logits for every item, then the choice: top_k experts, their combine weights, and the
 *             sums that become the routing statistics
 * dispatch.c  counts items per expert and sorts the (item, expert) pairs by expert
 * experts.c   runs each active expert once over its pairs
 * combine.c   adds the results back, weighted, in a fixed order
 * moe.c       the layer that holds them together
 *
 * An *item* is what gets routed: a row, unless a layer routes positions. */
#ifndef CORE_MOE_H
#define CORE_MOE_H

#include "layer.h"

/* Bounds the routing arrays of one layer; the largest published models have 512. */
enum { MAX_EXPERTS = 4096 };
/* Each has a name that no other may have and statistics of its own: a small config.json with a hundred
 * thousand of them would load for minutes. The largest models have about a hundred. */
enum { MAX_MOE_LAYERS = 1024 };

enum gate_score { SCORE_SOFTMAX, SCORE_SIGMOID, SCORE_NONE };
enum gate_normalize { NORMALIZE_NONE, NORMALIZE_SUM, NORMALIZE_SOFTMAX };

struct gate {
    struct chain chain; /* item -> logits [experts], or hidden vector g [hidden] when attentive */
    size_t experts, top_k;
    int score, normalize; /* enum gate_score, enum gate_normalize */
    float scale;
    struct array select_bias; /* [experts]; added to scores for the choice only */
    /* kind "attentive": logits_i = (Wq g) . (Wk e_i) / sqrt(hidden), e_i the output of expert i's
     * layer `key_layer`. Keys need every expert's first layers, so those run for every item. */
    bool attentive;
    size_t hidden;
    struct gemm query, key; /* Wq, Wk: [hidden, hidden] */
};

struct experts {
    size_t count;
    struct chain *chains;  /* [count], all of the same shapes */
    size_t split;          /* layers [0, split) run for all items before the gate; 0: none */
    size_t split_elements; /* of a row between the two parts */
    size_t scratch_per_row;
};

/* A run of one expert's pairs: what one thread of the team takes at a time. */
struct expert_task {
    uint32_t expert;
    uint32_t first, count; /* positions */
};

/* The mutable side of one MoE layer: lives in the scratch. The arrays that steer execution are the
 * ones the statistics are read from. */
struct routing {
    size_t items, experts, top_k;
    int32_t *expert; /* [items, top_k] best first */
    float *weight;   /* [items, top_k] */
    uint64_t *selected, *top1;
    double *weight_sum, *probability_sum;
    double entropy_sum;
    /* dispatch: pairs sorted by expert, within an expert by item */
    uint32_t *first;           /* [experts + 1] first position of each expert's pairs */
    uint32_t *item;            /* [items * top_k] the item at each position */
    uint32_t *position;        /* [items, top_k] where each pair went */
    struct expert_task *tasks; /* [items * top_k] */
    /* one item's working memory */
    float *scores, *probability; /* [experts] */
    struct moed_routing view;
};

int routing_init(struct routing *routing, const struct moed_moe_info *info, size_t max_items,
                 struct error *err);
void routing_close(struct routing *routing);

/* The routing of MoE layer `index` in this forward. */
struct routing *run_routing(const struct run *run, size_t index);

/* Reads node["gate"] of a MoE layer; `experts` are built already. Adds to the layer's counts. */
int gate_build(struct gate *gate, struct layer *layer, struct build *build,
               struct config_node *node, struct experts *experts, struct error *err);
void gate_close(struct gate *gate);

/* logits: [items, experts]. With `hidden` [experts, items, hidden] for an attentive gate. */
void gate_logits(const struct gate *gate, const struct run *run, size_t items, const float *x,
                 const float *hidden, float *logits);

/* Chooses and weighs experts for every item, and sums the statistics. Overwrites routing. NaN and
 * infinite logits are clamped, so the choice is always of top_k distinct experts and the sums stay
 * finite whatever a client sends. */
void gate_select(const struct gate *gate, size_t items, float *logits, struct routing *routing);

void dispatch(struct routing *routing);

int experts_build(struct experts *experts, struct layer *layer, struct build *build,
                  struct config_node *node, struct error *err);
void experts_close(struct experts *experts);

/* Layers [0, split) of every expert over every item: hidden [experts, items, split_elements]. */
void experts_heads(const struct experts *experts, const struct run *run, size_t items,
                   const float *x, float *hidden);

/* The layers from split on of every active expert over its pairs: out [pairs, out] by position.
 * Fills routing->tasks. Reads x [items, in], or hidden (see experts_heads) when split > 0;
 * `gathered` holds [pairs, in or split_elements]. */
void experts_forward(const struct experts *experts, const struct run *run, struct routing *routing,
                     const float *x, const float *hidden, float *gathered, float *out);

/* y[item] = sum over slots, best first, of weight * out[position]: [items, elements]. */
void combine(const struct run *run, const struct routing *routing, size_t elements,
             const float *out, float *y);

#endif

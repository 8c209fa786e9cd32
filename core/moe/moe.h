/* The MoE layer, step by step. Private to core/.
 *
 *     gate -> select -> dispatch -> experts -> combine
 *
 * gate.c      logits for every item
 * score.c     what the choice goes by
 * normalize.c the weights of what was chosen
 * select.c    the decision: top_k experts of every item, and their combine weights
 * dispatch.c  counts items per expert and sorts the (item, expert) pairs by expert
 * experts.c   runs each active expert once over its pairs
 * combine.c   adds the results back, weighted, in a fixed order
 * moe.c       the layer that holds them together
 *
 * An *item* is what gets routed: a row, or each position of one. A layer has one gate, or several
 * that choose among the same experts for tasks of their own; a pair that two gates chose is run
 * once. */
#ifndef CORE_MOE_H
#define CORE_MOE_H

#include "core/layers/chain.h"
#include "core/layers/projection.h"
#include "core/moe/score.h"

/* Bounds the routing arrays of one layer; the largest published models have 512. */
enum { MAX_EXPERTS = 4096 };
/* Of experts, within one gate. */
enum { MAX_GROUPS = 256 };
/* Each has a name that no other may have and statistics of its own: a small config.json with a
 * hundred thousand of them would load for minutes. The largest models have about a hundred. */
enum { MAX_GATES = 1024 };

enum group_score { GROUP_TOP2, GROUP_MAX };

/* An entry of an item's first axis, or all of it. */
struct slice {
    size_t first, elements; /* of the item's numbers */
};

#define WHOLE ((size_t)-1)

struct gate {
    struct chain chain; /* item -> logits [experts], or hidden vector g [hidden] when attentive */
    struct slice input; /* what of the item the gate sees */
    size_t item_elements;
    struct plan plan;                                 /* for each item */
    size_t sliced, hidden_out, queries, keys, layers; /* places */
    size_t index;          /* among the model's gates, in order of execution */
    size_t experts;        /* that this gate chooses among; its own indices are 0..experts - 1 */
    int32_t *expert_index; /* [experts] the layer's index of each; NULL: the same. Owned */
    size_t top_k;
    struct cost cost; /* for one item */
    const struct gate_score *score;
    const struct gate_normalize *normalize;
    float scale, p, jitter;     /* p: of normalize_lp; jitter: of score_sparsemixer */
    size_t groups, groups_kept; /* 0: no groups */
    int group_score;            /* enum group_score */
    bool limited;               /* has a capacity */
    double capacity_factor, capacity_minimum;
    struct array select_bias; /* [experts]; added to scores for the choice only */
    /* kind "attentive": logits_i = (Wq g) . (Wk e_i) / sqrt(hidden), e_i the output of expert i's
     * layer `key_layer`. Keys need every expert's first layers, so those run for every item. */
    bool attentive;
    size_t hidden, key_layer;
    struct projection query, key; /* Wq, Wk: [hidden, hidden] */
};

struct experts {
    size_t count;
    struct chain *chains;  /* [count], all of the same output */
    struct slice *inputs;  /* [count] what of the item each one sees */
    size_t split;          /* layers [0, split) run for all items before the gate; 0: none */
    size_t split_elements; /* of a row between the two parts */
    size_t item_elements;
    struct plan each; /* for each row of any of them */
    /* Places for each item: of the layers before the split; of what pairs read; of their layers. */
    size_t front, gathered, back;
};

/* What one gate decides; lives in the scratch. */
struct routing {
    struct moed_routing decisions; /* what moed_routing() hands out; points to the arrays below */
    int32_t *expert, *choice;
    float *weight;
    float *probability, *entropy, *margin; /* NULL: distributions are not kept */
    /* One item's working memory. */
    float *scores, *keys, *p; /* [experts] */
    uint32_t *places;         /* [experts] taken of each expert's capacity */
};

int routing_init(struct routing *routing, const struct moed_gate_info *info, size_t max_items,
                 bool distributions, struct error *err);
void routing_close(struct routing *routing);

/* A run of one expert's pairs: what one thread of the team takes at a time. */
struct expert_task {
    uint32_t expert;
    uint32_t first, count; /* positions */
};

/* The pairs of one MoE layer, sorted by expert, within an expert by item; lives in the scratch. */
struct dispatch {
    size_t items, experts;
    size_t slots;            /* selections per item: those of the first gate, of the second, ... */
    uint32_t *first;         /* [experts + 1] first position of each expert's pairs */
    uint32_t *item;          /* [items * slots] the item at each position */
    uint32_t *position;      /* [items, slots] where each selection's pair went; NOWHERE: dropped */
    uint32_t *last_item;     /* [experts] the last item that was placed, plus one, */
    uint32_t *last_position; /* [experts] and where */
    struct expert_task *tasks; /* [items * slots] */
};

#define NOWHERE UINT32_MAX

int dispatch_init(struct dispatch *dispatch, const struct moe_sizes *sizes, size_t max_items,
                  struct error *err);
void dispatch_close(struct dispatch *dispatch);

/* Where a gate or an expert finds its input in an item of shape `item`, and the shape of that:
 * entry number `entry` of the first axis, or WHOLE. */
void slice_of(struct slice *slice, struct moed_shape *shape, const struct moed_shape *item,
              size_t entry);
/* The same with node[key], the whole when it is not there. */
int slice_read(struct slice *slice, struct moed_shape *shape, const struct moed_shape *item,
               struct config_node *node, const char *key, struct error *err);

/* What the gates of one MoE layer have in common. */
struct gated {
    const char *layer;      /* its name */
    struct moed_shape item; /* what they route */
    size_t items_per_row;
    bool listed; /* they are entries of "gates", with names of their own */
    const struct experts *experts;
};

/* Builds a gate from `node`, in the scope of its layer, whose experts are built already. */
int gate_build(struct gate *gate, const struct scope *scope, struct config_node *node,
               const struct gated *gated, struct error *err);
void gate_close(struct gate *gate);

/* logits: [items, experts] of x: [items, item_elements]. With `hidden` [experts, items, hidden] for
 * an attentive gate. */
void gate_logits(const struct gate *gate, const struct run *run, size_t items, const float *x,
                 const float *hidden, float *logits);

/* Chooses and weighs experts for every item, which are those of run's spans, in order. Fills
 * routing->decisions, overwrites `logits`. NaN and infinite logits are clamped: the choice is
 * always of top_k distinct experts, and every number stays finite whatever a client sends. */
void gate_select(const struct gate *gate, const struct run *run, size_t items, float *logits,
                 struct routing *routing);

/* routing: [gate_count] what each gate of the layer decided for the same items. */
void dispatch_pairs(struct dispatch *dispatch, const struct routing *routing, size_t gate_count);

/* Builds the layer's "experts" for items of shape `item`. */
int experts_build(struct experts *experts, const struct scope *scope, struct config_node *node,
                  const struct moed_shape *item, bool routes_positions, struct error *err);

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
 * Fills dispatch->tasks. Reads x [items, item_elements], or hidden (see experts_front()) when
 * split > 0. */
void experts_forward(const struct experts *experts, const struct run *run,
                     struct dispatch *dispatch, const float *x, const float *hidden, float *out);

/* y: [items, gate_count, elements] of out: [pairs, elements]. What each gate makes of the results
 * for an item: the sum over its choice, best first, of weight * result; 0 where all were dropped.
 */
void combine(const struct routing *routing, size_t gate_count, const struct dispatch *dispatch,
             size_t elements, const float *out, float *y);

#endif

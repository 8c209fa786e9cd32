/* The policy of a gate: how logits become a choice of experts and their combine weights. All that
 * can be said of it without layers or tensors; core/CHECKPOINT.md defines every option.
 *
 * Scores and normalizations are tables, like that of the ops. A score turns an expert's logit into
 * what the choice goes by; a normalization turns what the chosen experts have into their weights.
 * Adding one: write its functions and its row in score.c or normalize.c, declare it here, name it
 * in CHECKPOINT.md, in clients/python/moed/gates.py and in the golden reference. */
#ifndef CORE_POLICY_H
#define CORE_POLICY_H

#include "core/load/config.h"

/* Of experts, within one gate. */
enum { MAX_GROUPS = 256 };

enum group_score { GROUP_TOP2, GROUP_MAX };

/* Which pairs of a group find a place first (CHECKPOINT.md). */
enum place_order { PLACE_CHOICES, PLACE_ITEMS, PLACE_SCORES, PLACE_PAIRS };

/* How many items of a group one expert serves. */
struct capacity {
    bool limited;  /* it has one */
    double factor; /* of items / experts, rounded up or down; 0: `places` */
    bool rounds_up;
    double minimum, places;
    size_t rows;       /* of a request that make a group; 0: all */
    int order;         /* enum place_order */
    bool renormalizes; /* weights are shared out among the pairs that found a place */
};

struct gate_policy {
    size_t experts; /* that the gate chooses among; its own indices are 0..experts - 1 */
    size_t top_k;
    const struct gate_score *score;
    const struct gate_normalize *normalize;
    float scale, p, jitter;     /* p: of normalize_lp; jitter: of score_sparsemixer */
    size_t groups, groups_kept; /* 0: no groups */
    int group_score;            /* enum group_score */
    struct capacity capacity;
};

/* Reads all of it but `experts`, which is known, from a gate's `node`. `format`: the config's. */
MUST_CHECK int policy_read(struct gate_policy *policy, struct config_node *node, int format,
                           struct error *err);

/* Whether combine weights may be negative. */
bool policy_is_signed(const struct gate_policy *policy);

/* How many of a group's experts, the best ones, make its value. */
size_t policy_group_experts(const struct gate_policy *policy);

/* One item and its chosen experts, to be weighed. */
struct choice {
    const float *logits, *scores; /* [experts] finite */
    float *keys;                  /* [experts] what was chosen by; -INFINITY: could not be chosen.
                                     Not needed afterwards */
    const int32_t *expert;        /* [top_k] best first */
};

struct gate_score {
    const char *name;
    int format;       /* the format_version that it came with; 0 and 1: the first */
    bool no_bias;     /* goes with no tensor select_bias */
    bool is_signed;   /* scores may be negative */
    bool fixed_top_k; /* weighs the top_k that check() asks for, and no other */
    /* Reads the keys of its own and refuses what it does not go with; NULL: neither. Their other
     * members are read. */
    int (*check)(struct gate_policy *policy, struct config_node *node, struct error *err);
    /* scores: [experts] for the choice. p: [experts] the gate's distribution over all experts, for
     * the statistics. Returns the entropy of p in nats. */
    float (*score)(const struct gate_policy *policy, const float *logits, float *scores, float *p);
    /* weights: [top_k]. NULL: the gate's normalization weighs. */
    void (*weigh)(const struct gate_policy *policy, const struct choice *choice, float *weights);
};

struct gate_normalize {
    const char *name;
    int format;
    bool is_positive; /* whatever the scores */
    int (*check)(struct gate_policy *policy, struct config_node *node,
                 struct error *err); /* may be NULL */
    void (*weigh)(const struct gate_policy *policy, const struct choice *choice, float *weights);
};

/* The row that node["score"] or node["normalize"] names, the first without that key; NULL with an
 * error. `format`: the config's. */
MUST_CHECK const struct gate_score *score_read(struct config_node *node, int format,
                                               struct error *err);
MUST_CHECK const struct gate_normalize *normalize_read(struct config_node *node, int format,
                                                       struct error *err);

extern const struct gate_score score_softmax, score_sigmoid, score_none, score_sparsemixer,
    score_sqrt_softplus;
extern const struct gate_normalize normalize_none, normalize_sum, normalize_softmax, normalize_lp;

#endif

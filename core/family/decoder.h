/* A transformer that predicts the next token, as its family's translation describes it: numbers and
 * names in, moed's config and the views of all tensors out.
 *
 *     x = embedding(token);  x += attention(norm(x)), x += feed_forward(norm(x)) for every layer;
 *     logits = head(norm(x))
 */
#ifndef CORE_DECODER_H
#define CORE_DECODER_H

#include "core/family/rope.h"

/* How a family calls its tensors. Those of a layer are below "model.layers.<i>.". */
struct decoder_names {
    const char *attention_norm, *feed_forward_norm;
    const char *q_norm, *k_norm, *out; /* below "self_attn" */
    const char *dense;                 /* the feed-forward network of a layer without experts */
    const char *moe, *gate;            /* gate: below moe */
    const char *select_bias;           /* below moe; NULL: there is none */
    const char *shared;                /* below the layer */
    const char *gate_proj, *up_proj, *down_proj;
    const char *final_norm;
};

extern const struct decoder_names decoder_names; /* those of most families */

struct latent;

struct decoder_layer {
    bool sparse;    /* has experts */
    bool convolves; /* has no attention (LFM2) */
    size_t window;  /* 0: none */
};

enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_ALL };

struct decoder {
    struct decoder_names names;
    size_t vocabulary, hidden, heads, kv_heads, head_dim, dense_size, context;
    size_t layer_count;
    struct decoder_layer *layers; /* [layer_count] owned */
    bool centred;                 /* norms subtract the mean and have a bias */
    double eps;
    enum qk_norm qk_norm;
    bool normalizes_late; /* queries and keys after they are turned, not before */
    double clip;          /* of queries, keys and values; 0: none */
    bool qkv_bias, out_bias, dense_bias, shared_bias, head_bias, sinks, tied;
    double attention_scale; /* 0: 1 / sqrt(head_dim) */
    double embedding_scale, residual_scale, logits_scale;
    json_t *rotary; /* owned; NULL: none */
    /* Experts; expert_count 0: there are none. */
    size_t expert_count, top_k, expert_size, shared_size;
    const char *score, *normalize;
    double routed_scale, jitter;
    size_t groups, groups_kept;
    const char *groups_by; /* NULL: no groups */
    bool gate_bias, shared_gate;
    bool further_layers; /* layers after the last, which guess further tokens, are ignored */
    json_t *bends;       /* more keys of the experts' glu; owned; may be NULL */
    /* A layer's attention. */
    json_t *(*attention)(struct translation *t, const struct decoder *decoder, size_t layer);
    const struct latent *latent; /* for it (deepseek.c) */
    size_t conv_taps;            /* of layers that convolve */
    bool conv_bias;
    /* Makes the views of one layer's experts. */
    void (*add_experts)(struct translation *t, const struct decoder *decoder, size_t layer);
};

/* Reads the sizes that all have; family_decoder_close() it also after an error. */
void decoder_read(struct translation *t, struct decoder *decoder, double eps);
void family_decoder_close(struct decoder *decoder);

/* Experts' numbers, by the keys that say them. */
void decoder_read_experts(struct translation *t, struct decoder *decoder, const char *count,
                          const char *top_k, const char *size);
/* Reads the list `key`, which has one of `names` (NULL-terminated) for each layer, as their indices
 * there: [layer_count], which the caller frees. NULL after an error. */
MUST_CHECK int *decoder_read_types(struct translation *t, const struct decoder *decoder,
                                   const char *key, const char *const names[]);
/* How many of the first layers have no experts; all others have. */
void decoder_read_first_dense(struct translation *t, struct decoder *decoder, const char *key,
                              int64_t otherwise);
/* "layer_types", if it is there: which layers have the window. */
void decoder_read_windows(struct translation *t, struct decoder *decoder, size_t window);

/* Attention over heads of keys and values. */
json_t *decoder_attention(struct translation *t, const struct decoder *decoder, size_t layer);

/* One tensor for each matrix of each expert. */
void decoder_add_experts(struct translation *t, const struct decoder *decoder, size_t layer);

/* Experts in two tensors, `gate_up` [experts, 2 expert_size, hidden], the gate's rows first, and
 * `down` [experts, hidden, expert_size]. */
void decoder_add_slabs(struct translation *t, const struct decoder *decoder, size_t layer,
                       const char *gate_up, const char *down);

/* moed's config; NULL after an error. */
json_t *decoder_translate(struct translation *t, const struct decoder *decoder);

#endif

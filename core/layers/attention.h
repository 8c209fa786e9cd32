/* What the parts of attention share: attention.c builds it, attention_rows.c runs it over the
 * positions of one row, attention_sequence.c over the rows of a sequence, latent.c over those with
 * keys and values of its own. Private to them. */
#ifndef CORE_ATTENTION_H
#define CORE_ATTENTION_H

#include "core/layers/layer.h"
#include "core/layers/projection.h"
#include "core/layers/rotary.h"

struct attention {
    struct projection in, out;
    struct rotary rotary;
    struct array q_norm, k_norm; /* [width of what is normalised]; values NULL: it is not */
    struct array sinks;          /* [heads] */
    struct array bias;           /* [heads, positions, positions] */
    bool over_sequence;          /* a row is one position */
    size_t positions;            /* of a row */
    size_t size, heads, kv_heads, head_dim;
    size_t window;        /* 0: none */
    bool normalizes_late; /* queries and keys after they are turned, not before */
    float clip;           /* of queries, keys and values; 0: none */
    bool causal, half;    /* half: sessions keep keys and values as binary16 */
    bool kept;            /* sessions keep them at all: rows of a sequence may come part by part */
    float scale;          /* of scores */
    float eps;
    size_t qkv, context; /* places */
};

/* Numbers of one position's queries, keys and values together. */
static inline size_t attention_projected(const struct attention *attention)
{
    return (attention->heads + 2 * attention->kv_heads) * attention->head_dim;
}

/* The keys that the query at `position` sees, of `count`: [*from, *end). */
static inline void attention_visible(const struct attention *attention, size_t position,
                                     size_t count, size_t *from, size_t *end)
{
    size_t window = attention->window;
    *from = window && position >= window ? position - window + 1 : 0;
    *end = attention->causal ? position + 1 : window ? position + window : count;
    *end = *end < count ? *end : count;
}

/* Divides each vector of `count` numbers by its root mean square, and multiplies by the weight,
 * whose width it has; without values nothing is done. */
void attention_normalize(const struct array *weight, float eps, size_t count, float *x);

/* What is done with one position's queries, keys and values before queries and keys are turned, and
 * with its queries and keys after that: qkv is [heads + 2 kv_heads, head_dim]. */
void attention_before_turn(const struct attention *attention, float *qkv);
void attention_after_turn(const struct attention *attention, float *qkv);

/* Plans and runs a row's own positions: x, y are [rows, positions, size]. */
void attention_rows_plan(struct attention *attention, struct layer *layer);
void attention_rows_forward(const struct layer *layer, const struct run *run, size_t rows,
                            const float *x, float *y);

/* Plans and runs rows that are positions of sequences: x, y are [rows, size]. Collective. */
void attention_sequence_plan(struct attention *attention, struct layer *layer);
/* What comes between its two projections: from its place `qkv` to its place `context`. */
void attention_sequence_attend(const struct attention *attention, const struct layer *layer,
                               const struct run *run, size_t rows);
/* The same of prepared queries, keys and values that no session keeps: all of `count` positions,
 * by the worker alone. It needs attention_workspace() floats. */
void attention_attend(const struct attention *attention, const struct run *run, size_t count,
                      float *qkv, float *context);
size_t attention_workspace(const struct attention *attention);
void attention_sequence_forward(const struct layer *layer, const struct run *run, size_t rows,
                                const float *x, float *y);

#endif

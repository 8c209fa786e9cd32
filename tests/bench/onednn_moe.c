/* Rows are sorted by expert, gathered, and added back, with oneDNN's product for each expert. */
#include "onednn_moe.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "onednn_product.h"

/* Weights are packed in the format that oneDNN prefers for this many rows per expert. */
enum { TYPICAL_ROWS = 16 };

struct onednn_moe {
    size_t d, ff, experts, top_k;
    struct onednn_product *gate, *up, *down;
    struct dnnl_memory *gate_weights, **up_weights, **down_weights; /* [experts] */
    float *logits;                                                  /* [rows, experts] */
    size_t *chosen, *pairs, *first; /* [rows, top_k], the same by expert, [experts + 1] */
    float *weight;                  /* [rows, top_k] */
    float *gathered, *hidden, *results;
};

static struct dnnl_memory *pack(const struct onednn_product *product,
                                const struct safetensors *weights, const char *name)
{
    return onednn_product_pack(product, safetensors_find(weights, name)->data);
}

static void pack_all(struct onednn_moe *moe, const struct safetensors *weights)
{
    char name[64];
    moe->up_weights = bench_memory(moe->experts * sizeof *moe->up_weights);
    moe->down_weights = bench_memory(moe->experts * sizeof *moe->down_weights);
    moe->gate_weights = pack(moe->gate, weights, "moe.gate.out.weight");
    for (size_t e = 0; e < moe->experts; e++) {
        snprintf(name, sizeof name, "moe.experts.%zu.fc1.weight", e);
        moe->up_weights[e] = pack(moe->up, weights, name);
        snprintf(name, sizeof name, "moe.experts.%zu.fc2.weight", e);
        moe->down_weights[e] = pack(moe->down, weights, name);
    }
}

struct onednn_moe *onednn_moe_new(const struct moed_model_info *info,
                                  const struct safetensors *weights, size_t max_rows)
{
    const struct tensor *gate = safetensors_find(weights, "moe.gate.out.weight");
    const struct tensor *up = safetensors_find(weights, "moe.experts.0.fc1.weight");
    const struct tensor *down = safetensors_find(weights, "moe.experts.0.fc2.weight");
    if (!gate || !up || !down)
        return NULL;
    struct onednn_moe *moe = bench_memory(sizeof *moe);
    *moe = (struct onednn_moe){.d = gate->dims[1],
                               .ff = up->dims[0],
                               .experts = gate->dims[0],
                               .top_k = info->gates->top_k};
    const size_t d = moe->d, ff = moe->ff, slots = max_rows * moe->top_k;
    moe->gate = onednn_product_new(moe->experts, d, max_rows, max_rows, false, false);
    moe->up = onednn_product_new(ff, d, TYPICAL_ROWS, max_rows, false, true);
    moe->down = onednn_product_new(d, ff, TYPICAL_ROWS, max_rows, false, false);
    pack_all(moe, weights);
    moe->logits = bench_memory(max_rows * moe->experts * sizeof *moe->logits);
    moe->chosen = bench_memory(slots * sizeof *moe->chosen);
    moe->pairs = bench_memory(slots * sizeof *moe->pairs);
    moe->first = bench_memory((moe->experts + 1) * sizeof *moe->first);
    moe->weight = bench_memory(slots * sizeof *moe->weight);
    moe->gathered = bench_memory(max_rows * d * sizeof *moe->gathered);
    moe->hidden = bench_memory(max_rows * ff * sizeof *moe->hidden);
    moe->results = bench_memory(max_rows * d * sizeof *moe->results);
    return moe;
}

/* Chooses the top_k of one row and the softmax over them; overwrites the row's logits. */
static void choose(const struct onednn_moe *moe, float *logits, size_t *chosen, float *weight)
{
    float best = 0, sum = 0;
    for (size_t slot = 0; slot < moe->top_k; slot++) {
        size_t most = 0;
        for (size_t e = 1; e < moe->experts; e++)
            if (logits[e] > logits[most])
                most = e;
        best = slot == 0 ? logits[most] : best;
        chosen[slot] = most;
        weight[slot] = expf(logits[most] - best);
        sum += weight[slot];
        logits[most] = -INFINITY;
    }
    for (size_t slot = 0; slot < moe->top_k; slot++)
        weight[slot] /= sum;
}

/* Sorts the (row, slot) pairs by expert. */
static void sort_pairs(const struct onednn_moe *moe, size_t rows)
{
    const size_t pairs = rows * moe->top_k;
    size_t *first = moe->first;
    memset(first, 0, (moe->experts + 1) * sizeof *first);
    for (size_t pair = 0; pair < pairs; pair++)
        first[moe->chosen[pair] + 1]++;
    for (size_t e = 0; e < moe->experts; e++)
        first[e + 1] += first[e];
    for (size_t pair = 0; pair < pairs; pair++)
        moe->pairs[first[moe->chosen[pair]]++] = pair;
    memmove(first + 1, first, moe->experts * sizeof *first);
    first[0] = 0;
}

static void run_expert(const struct onednn_moe *moe, size_t expert, const float *x, float *y)
{
    const size_t d = moe->d, begin = moe->first[expert];
    const size_t rows = moe->first[expert + 1] - begin;
    if (rows == 0)
        return;
    for (size_t i = 0; i < rows; i++)
        memcpy(moe->gathered + i * d, x + moe->pairs[begin + i] / moe->top_k * d, d * sizeof *x);
    onednn_product_run(moe->up, moe->up_weights[expert], rows, moe->gathered, moe->hidden);
    onednn_product_run(moe->down, moe->down_weights[expert], rows, moe->hidden, moe->results);
    for (size_t i = 0; i < rows; i++) {
        const float weight = moe->weight[moe->pairs[begin + i]];
        float *to = y + moe->pairs[begin + i] / moe->top_k * d;
        for (size_t j = 0; j < d; j++)
            to[j] += weight * moe->results[i * d + j];
    }
}

void onednn_moe_forward(struct onednn_moe *moe, size_t rows, const float *x, float *y)
{
    onednn_product_run(moe->gate, moe->gate_weights, rows, x, moe->logits);
    for (size_t row = 0; row < rows; row++)
        choose(moe, moe->logits + row * moe->experts, moe->chosen + row * moe->top_k,
               moe->weight + row * moe->top_k);
    sort_pairs(moe, rows);
    memset(y, 0, rows * moe->d * sizeof *y);
    for (size_t expert = 0; expert < moe->experts; expert++)
        run_expert(moe, expert, x, y);
}

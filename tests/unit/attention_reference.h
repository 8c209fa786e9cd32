/* Attention over a sequence in double, without pages, blocks or threads. */
#ifndef TEST_ATTENTION_REFERENCE_H
#define TEST_ATTENTION_REFERENCE_H

#include "sequence_model.h"

/* Everything of one layer, in double. */
struct reference {
    const struct attention_options *options;
    const struct sequence_weights *weights;
    size_t layer, count;
    double *q, *k, *v; /* [count, heads or kv_heads, head_dim] */
};

static inline const float *tensor(const struct reference *of, const char *suffix)
{
    char name[64];
    snprintf(name, sizeof name, "a%zu.%s", of->layer, suffix);
    return weights_of(of->weights, name);
}

static inline void multiply(const float *weights, const float *bias, size_t n, size_t k,
                            const double *x, double *y)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = bias ? (double)bias[i] : 0;
        for (size_t j = 0; j < k; j++)
            y[i] += (double)weights[i * k + j] * x[j];
    }
}

static inline void normalize(const float *weight, size_t width, double *x)
{
    double square = 0;
    for (size_t i = 0; i < width; i++)
        square += x[i] * x[i];
    for (size_t i = 0; i < width; i++)
        x[i] *= (double)weight[i] / sqrt(square / (double)width + 1e-6);
}

static inline void normalize_all(const struct reference *of, const char *name, size_t heads,
                                 double *x)
{
    size_t width = of->options->head_dim;
    if (!of->options->qk_norm)
        return;
    if (strcmp(of->options->qk_norm, "all") == 0)
        normalize(tensor(of, name), heads * width, x);
    for (size_t head = 0; strcmp(of->options->qk_norm, "head") == 0 && head < heads; head++)
        normalize(tensor(of, name), width, x + head * width);
}

static inline void turn(const struct attention_options *options, size_t position, size_t heads,
                        double *x)
{
    size_t pairs = options->rotary / 2;
    for (size_t head = 0; head < heads; head++, x += options->head_dim)
        for (size_t j = 0; j < pairs; j++) {
            double angle = (double)position * pow(100, -(double)j / (double)pairs);
            double *a = x + (options->interleaved ? 2 * j : j);
            double *b = options->interleaved ? a + 1 : a + pairs;
            double before = *a;
            *a = before * cos(angle) - *b * sin(angle);
            *b = *b * cos(angle) + before * sin(angle);
        }
}

static inline bool sees(const struct attention_options *options, size_t query, size_t key)
{
    size_t window = options->window;
    if (options->causal && key > query)
        return false;
    return !window || (key + window > query && query + window > key);
}

/* One query's result, [head_dim]. */
static inline void attend(const struct reference *of, size_t position, size_t head, double *y)
{
    const struct attention_options *options = of->options;
    size_t width = options->head_dim, kept = options->kv_heads * width;
    size_t at = head / (options->heads / options->kv_heads) * width;
    const double *q = of->q + (position * options->heads + head) * width;
    const double scale = options->scale != 0 ? options->scale : 1 / sqrt((double)width);
    double sum = options->sinks ? exp((double)tensor(of, "sinks")[head]) : 0;
    for (size_t i = 0; i < width; i++)
        y[i] = 0;
    for (size_t key = 0; key < of->count; key++) {
        double score = 0;
        for (size_t i = 0; i < width; i++)
            score += q[i] * of->k[key * kept + at + i] * scale;
        const double p = sees(options, position, key) ? exp(score) : 0;
        sum += p;
        for (size_t i = 0; i < width; i++)
            y[i] += p * of->v[key * kept + at + i];
    }
    for (size_t i = 0; i < width; i++)
        y[i] /= sum;
}

static inline void project(struct reference *of, const double *x)
{
    const struct attention_options *options = of->options;
    size_t queries = options->heads * options->head_dim,
           kept = options->kv_heads * options->head_dim;
    double all[queries + 2 * kept];
    for (size_t i = 0; i < of->count; i++) {
        multiply(tensor(of, "in_proj_weight"), tensor(of, "in_proj_bias"), queries + 2 * kept,
                 SEQUENCE_SIZE, x + i * SEQUENCE_SIZE, all);
        normalize_all(of, "q_norm.weight", options->heads, all);
        normalize_all(of, "k_norm.weight", options->kv_heads, all + queries);
        turn(options, i, options->heads, all);
        turn(options, i, options->kv_heads, all + queries);
        memcpy(of->q + i * queries, all, queries * sizeof *all);
        memcpy(of->k + i * kept, all + queries, kept * sizeof *all);
        memcpy(of->v + i * kept, all + queries + kept, kept * sizeof *all);
    }
}

/* x: [count, SEQUENCE_SIZE], changed in place by one layer and its residual. */
static inline void run_reference_layer(struct reference *of, double *x)
{
    const struct attention_options *options = of->options;
    size_t queries = options->heads * options->head_dim;
    double context[queries], y[SEQUENCE_SIZE];
    project(of, x);
    for (size_t i = 0; i < of->count; i++) {
        for (size_t head = 0; head < options->heads; head++)
            attend(of, i, head, context + head * options->head_dim);
        multiply(tensor(of, "out_proj.weight"), NULL, SEQUENCE_SIZE, queries, context, y);
        for (size_t j = 0; j < SEQUENCE_SIZE; j++)
            x[i * SEQUENCE_SIZE + j] += y[j];
    }
}

static inline void run_reference(const struct attention_options *options,
                                 const struct sequence_weights *weights, const int32_t *tokens,
                                 size_t count, double *logits)
{
    size_t queries = options->heads * options->head_dim,
           kept = options->kv_heads * options->head_dim;
    struct reference of = {options,
                           weights,
                           0,
                           count,
                           xcalloc(count * queries, sizeof(double)),
                           xcalloc(count * kept, sizeof(double)),
                           xcalloc(count * kept, sizeof(double))};
    double *x = xcalloc(count * SEQUENCE_SIZE, sizeof *x);
    const float *table = weights_of(weights, "e.weight");
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < SEQUENCE_SIZE; j++)
            x[i * SEQUENCE_SIZE + j] = (double)table[(size_t)tokens[i] * SEQUENCE_SIZE + j];
    for (; of.layer < SEQUENCE_LAYERS; of.layer++)
        run_reference_layer(&of, x);
    for (size_t i = 0; i < count; i++)
        multiply(weights_of(weights, "head.weight"), NULL, WIDTH, SEQUENCE_SIZE,
                 x + i * SEQUENCE_SIZE, logits + i * WIDTH);
    free(x);
    free(of.q);
    free(of.k);
    free(of.v);
}

#endif

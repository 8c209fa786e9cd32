/* A small model of sequences for tests: tokens, attention over the sequence, a linear output. Its
 * weights are random, and kept for a reference. */
#ifndef TEST_SEQUENCE_MODEL_H
#define TEST_SEQUENCE_MODEL_H

#include <stdarg.h>

#include "support.h"

enum { SEQUENCE_TOKENS = 19, SEQUENCE_SIZE = 20, SEQUENCE_CONTEXT = 512, SEQUENCE_LAYERS = 2 };

struct attention_options {
    const char *name;
    size_t heads, kv_heads, head_dim, window;
    bool alternates; /* the window is that of the first layer alone */
    bool causal, sinks, bias;
    double scale;          /* 0: 1 / sqrt(head_dim) */
    const char *qk_norm;   /* NULL, "head", "all" */
    size_t rotary;         /* numbers of a head that are turned; 0: none */
    bool interleaved, moe; /* moe: a MoE layer after each attention */
};

struct sequence_weights {
    struct stored tensors[64];
    char names[64][64];
    size_t count;
};

/* The values of a tensor that was added. */
static inline const float *weights_of(const struct sequence_weights *weights, const char *name)
{
    for (size_t i = 0; i < weights->count; i++)
        if (strcmp(weights->names[i], name) == 0)
            return weights->tensors[i].values;
    return NULL;
}

static inline __attribute__((format(printf, 4, 5))) void add_weight(
    struct sequence_weights *weights, size_t rows, size_t columns, const char *format, ...)
{
    size_t at = weights->count++, count = rows * (columns ? columns : 1);
    float *values = xmalloc(count * sizeof *values);
    uint32_t state = (uint32_t)(1013 * at + 7);
    for (size_t i = 0; i < count; i++)
        values[i] = ((float)(next_random(&state) % 2001) / 1000 - 1) * (columns ? 0.5f : 1);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(weights->names[at], sizeof weights->names[at], format, arguments);
    va_end(arguments);
    weights->tensors[at] = (struct stored){.name = weights->names[at],
                                           .rank = columns ? 2 : 1,
                                           .dims = {rows, columns},
                                           .values = values};
}

static inline void free_weights(struct sequence_weights *weights)
{
    for (size_t i = 0; i < weights->count; i++)
        free((float *)weights->tensors[i].values);
}

static inline void add_attention(struct sequence_weights *weights, size_t layer,
                                 const struct attention_options *options)
{
    size_t queries = options->heads * options->head_dim;
    size_t kept = options->kv_heads * options->head_dim;
    bool all = options->qk_norm && strcmp(options->qk_norm, "all") == 0;
    add_weight(weights, queries + 2 * kept, SEQUENCE_SIZE, "a%zu.in_proj_weight", layer);
    add_weight(weights, SEQUENCE_SIZE, queries, "a%zu.out_proj.weight", layer);
    if (options->bias)
        add_weight(weights, queries + 2 * kept, 0, "a%zu.in_proj_bias", layer);
    if (options->sinks)
        add_weight(weights, options->heads, 0, "a%zu.sinks", layer);
    if (options->qk_norm) {
        add_weight(weights, all ? queries : options->head_dim, 0, "a%zu.q_norm.weight", layer);
        add_weight(weights, all ? kept : options->head_dim, 0, "a%zu.k_norm.weight", layer);
    }
    if (options->moe)
        add_weight(weights, 4, SEQUENCE_SIZE, "m%zu.gate.g.weight", layer);
    for (int expert = 0; options->moe && expert < 4; expert++)
        add_weight(weights, SEQUENCE_SIZE, SEQUENCE_SIZE, "m%zu.experts.%d.fc.weight", layer,
                   expert);
}

static inline void print_attention(FILE *config, size_t layer,
                                   const struct attention_options *options)
{
    fprintf(config,
            "{'op':'residual','layers':[{'op':'attention','name':'a%zu','over':'sequence',"
            "'causal':%s,'heads':%zu,'kv_heads':%zu,'head_dim':%zu",
            layer, options->causal ? "true" : "false", options->heads, options->kv_heads,
            options->head_dim);
    if (options->window && !(options->alternates && layer > 0))
        fprintf(config, ",'window':%zu", options->window);
    if (options->scale != 0)
        fprintf(config, ",'scale':%g", options->scale);
    if (options->qk_norm)
        fprintf(config, ",'qk_norm':'%s'", options->qk_norm);
    if (options->rotary)
        fprintf(config, ",'rotary':{'dims':%zu,'interleaved':%s,'theta':100}", options->rotary,
                options->interleaved ? "true" : "false");
    fprintf(config, "}]}");
    if (options->moe)
        fprintf(config,
                ",{'op':'residual','layers':[{'op':'moe','name':'m%zu','gate':{'layers':[{'op':"
                "'linear','name':'g'}],'top_k':2,'normalize':'sum'},'experts':{'count':4,'layers':["
                "{'op':'linear','name':'fc'},{'op':'silu'}]}}]}",
                layer);
}

/* The caller frees the model and closes `weights`. */
static inline struct moed_model *new_sequence_model(const struct attention_options *options,
                                                    enum moed_kv kv,
                                                    struct sequence_weights *weights)
{
    struct error err = ERROR_INIT;
    const struct moed_load_options load = {.kv = kv};
    char *text, *directory = new_directory();
    size_t length;
    FILE *config = open_memstream(&text, &length);
    *weights = (struct sequence_weights){.count = 0};
    add_weight(weights, SEQUENCE_TOKENS, SEQUENCE_SIZE, "e.weight");
    fprintf(config,
            "{'model_type':'moed','format_version':3,'context':%d,'inputs':[{'name':'tokens',"
            "'shape':[],'categories':%d,'layers':[{'op':'embedding','name':'e'}]}],'layers':[",
            SEQUENCE_CONTEXT, SEQUENCE_TOKENS);
    for (size_t layer = 0; layer < SEQUENCE_LAYERS; layer++) {
        fprintf(config, layer ? "," : "");
        print_attention(config, layer, options);
        add_attention(weights, layer, options);
    }
    add_weight(weights, SEQUENCE_TOKENS, SEQUENCE_SIZE, "head.weight");
    fprintf(config, "],'outputs':[{'name':'logits','layers':[{'op':'linear','name':'head'}]}]}");
    fclose(config);
    write_checkpoint(directory, text, weights->tensors, weights->count);
    struct moed_model *model = moed_model_load(directory, &load, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    free(text);
    free(directory);
    return model;
}

static inline void fill_tokens(int32_t *tokens, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        tokens[i] = (int32_t)(next_random(&seed) % SEQUENCE_TOKENS);
}

/* ---- running ---- */

enum { LONGEST = 300, WIDTH = SEQUENCE_TOKENS };

struct sequence {
    struct moed_pages *pages;
    struct moed_session *session; /* NULL: the model needs none */
    int32_t tokens[LONGEST];
    size_t count, done;
    float logits[LONGEST * WIDTH];
};

static inline struct sequence *new_sequence(const struct moed_model *model, size_t count,
                                            uint32_t seed)
{
    struct sequence *sequence = xcalloc(1, sizeof *sequence);
    sequence->count = count;
    fill_tokens(sequence->tokens, count, seed);
    if (moed_model_info(model)->position_bytes)
        sequence->session = new_session(model, count, &sequence->pages);
    return sequence;
}

static inline void free_sequence(struct sequence *sequence)
{
    moed_session_free(sequence->session);
    moed_pages_free(sequence->pages);
    free(sequence);
}

static inline void start_again(struct sequence *sequence)
{
    if (sequence->session) {
        moed_session_truncate(sequence->session, 0);
        ck_assert_int_eq(moed_session_reserve(sequence->session, sequence->count), 0);
    }
    memset(sequence->logits, 0xff, sizeof sequence->logits);
    sequence->done = 0;
}

struct engine {
    const struct moed_model *model;
    struct moed_scratch *scratch;
    struct moed_team *team;
};

static inline struct engine new_engine(const struct moed_model *model, size_t rows,
                                       unsigned threads)
{
    struct engine engine = {model, new_scratch(model, rows, threads, NULL), NULL};
    ck_assert_ptr_nonnull(engine.scratch);
    engine.team = threads > 1 ? moed_team_new(threads) : NULL;
    if (engine.team)
        team_fork_from(engine.team, 0);
    return engine;
}

static inline void free_engine(struct engine *engine)
{
    moed_team_free(engine->team);
    moed_scratch_free(engine->scratch);
}

struct chunk {
    struct sequence *sequence;
    size_t rows;
};

static inline void run_chunks(const struct engine *engine, const struct chunk *chunks, size_t count)
{
    struct moed_span spans[8];
    static int32_t tokens[8 * LONGEST];
    static float y[8 * LONGEST * WIDTH];
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        const struct sequence *sequence = chunks[i].sequence;
        spans[i] = (struct moed_span){.rows = chunks[i].rows,
                                      .position = sequence->session ? sequence->done : 0,
                                      .session = sequence->session};
        memcpy(tokens + rows, sequence->tokens + sequence->done, chunks[i].rows * sizeof *tokens);
        rows += chunks[i].rows;
    }
    const void *const inputs[] = {tokens};
    float *const outputs[] = {y};
    moed_forward(engine->model, engine->scratch, engine->team,
                 &(struct moed_batch){spans, count, inputs, outputs, NULL});
    for (size_t i = 0, row = 0; i < count; row += chunks[i++].rows) {
        struct sequence *sequence = chunks[i].sequence;
        memcpy(sequence->logits + sequence->done * WIDTH, y + row * WIDTH,
               chunks[i].rows * WIDTH * sizeof *y);
        sequence->done += chunks[i].rows;
    }
}

/* In chunks of `first` rows, then as many, and the rest. */
static inline void run_alone(const struct engine *engine, struct sequence *sequence, size_t most)
{
    while (sequence->done < sequence->count) {
        const size_t left = sequence->count - sequence->done;
        run_chunks(engine, &(struct chunk){sequence, left < most ? left : most}, 1);
    }
}

static inline void expect_same(const struct sequence *sequence, const float *expected,
                               const char *what)
{
    ck_assert_msg(memcmp(sequence->logits, expected, sequence->count * WIDTH * sizeof *expected) ==
                      0,
                  "%s: bits differ", what);
}

static inline float *at_once(const struct moed_model *model, struct sequence *sequence)
{
    struct engine engine = new_engine(model, sequence->count, 1);
    start_again(sequence);
    run_alone(&engine, sequence, sequence->count);
    free_engine(&engine);
    float *logits = xmalloc(sizeof sequence->logits);
    memcpy(logits, sequence->logits, sizeof sequence->logits);
    return logits;
}

#endif

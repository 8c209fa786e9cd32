/* OpenAI's API as plain structs: what requests ask for (openai_read.c, ...), and answers, streamed
 * events and errors as JSON (openai_write.c, ...). OPENAI.md says which fields there are, which are
 * ignored and which are refused.
 *
 * Readers know no model: they check what can be checked without one. Whoever has the model then
 * applies its recommended sampling and checks token ids against its vocabulary. */
#ifndef PROTO_OPENAI_H
#define PROTO_OPENAI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/sampler.h"
#include "proto/buffer.h"
#include "proto/language.h"

enum {
    /* Memory for the tree of one body: a number costs the parser some fifty bytes. */
    OPENAI_MAX_TREE = 16 << 20,
    /* Prompts of one completion, texts of one /v1/embeddings (OpenAI's own limit). */
    OPENAI_MAX_PROMPTS = 2048,
    /* Most tokens that one answer may ask for, whatever the model: keeps sums from overflowing. */
    OPENAI_MAX_TOKENS = 1 << 24,
    /* Tokens that end an answer, beside those of the model. */
    OPENAI_MAX_STOP_TOKENS = 64,
};

/* ---- requests ---- */

/* Text or token ids. */
struct openai_prompt {
    const char *text; /* NULL: ids */
    size_t length;
    const int32_t *ids; /* from 0; not checked against a vocabulary */
    size_t count;
};

/* One or several, in the order of the request. */
struct openai_prompts {
    struct openai_prompt *items; /* owned; at least one */
    size_t count;
    int32_t *ids; /* owned; of all items */
};

enum openai_routing_form {
    OPENAI_ROUTING_NONE,
    OPENAI_ROUTING_LISTS,
    OPENAI_ROUTING_BASE64,
    OPENAI_ROUTING_NPY,   /* the experts as vLLM's clients read them */
    OPENAI_ROUTING_SGLANG /* the same, SGLang's */
};

/* Sampling as a request gives it: NaN, or SIZE_MAX, where it does not. */
struct openai_sampling {
    double temperature, top_p, min_p;
    double repetition_penalty, frequency_penalty, presence_penalty;
    size_t top_k;
    bool seeded; /* a seed was given */
    uint64_t seed;
    struct sampler_bias *biases; /* owned by the request */
    size_t bias_count;
};

/* What completions and chats have in common. Text belongs to `root`. */
struct openai_generation {
    json_t *root;      /* owned */
    const char *model; /* NULL: not named */
    struct openai_sampling sampling;
    size_t max_tokens; /* SIZE_MAX: not given; 0 is allowed for completions only */
    bool logprobs;
    size_t top_logprobs; /* alternatives per token, at most SAMPLER_MAX_TOP */
    const char *stops[STOPS_MAX];
    size_t stop_count;
    int32_t
        stop_tokens[OPENAI_MAX_STOP_TOKENS]; /* that end the answer as its end of sequence does */
    size_t stop_token_count;
    bool ignore_eos; /* an extension for benchmarks: the end of sequence does not end the answer */
    bool stream, include_usage;
    const char *user; /* NULL: not given; the tag of the statistics */
    int priority;     /* below 0: before others that wait; above: behind them */
    enum openai_routing_form routing;
    const json_t *experts; /* what is asked of the gates (overrides.h); NULL: nothing */
};

/* POST /v1/completions */
struct openai_completion {
    struct openai_generation generation;
    struct openai_prompts prompts;
    bool echo;
};

/* POST /v1/chat/completions, and /apply-template, which looks at `variables` only */
struct openai_chat {
    struct openai_generation generation;
    json_t *variables; /* owned; for language_render(): messages, chat_template_kwargs, ... */
};

/* POST /v1/embeddings */
struct openai_embeddings {
    json_t *root;      /* owned */
    const char *model; /* NULL: not named */
    struct openai_prompts prompts;
    bool base64;
    size_t dimensions; /* 0: all */
    const char *user;  /* NULL: not given */
    int priority;
};

/* POST /tokenize, POST /detokenize */
struct openai_text {
    json_t *root;                /* owned */
    const char *model;           /* NULL: not named */
    struct openai_prompts input; /* one: text for /tokenize, ids for /detokenize */
    bool add_special;
};

/* Each reads a body. On failure there is nothing to close; the message begins with the member's
 * name in quotes where there is one at fault, and openai_write_error() makes it the "param". */
MUST_CHECK int openai_read_completion(const char *body, size_t length,
                                      struct openai_completion *request, struct error *err);
MUST_CHECK int openai_read_chat(const char *body, size_t length, struct openai_chat *request,
                                struct error *err);
MUST_CHECK int openai_read_embeddings(const char *body, size_t length,
                                      struct openai_embeddings *request, struct error *err);
MUST_CHECK int openai_read_tokenize(const char *body, size_t length, struct openai_text *request,
                                    struct error *err);
MUST_CHECK int openai_read_detokenize(const char *body, size_t length, struct openai_text *request,
                                      struct error *err);

/* The model that a body names which its reader has refused; the caller frees it. NULL: it names
 * none, or cannot be read at all. */
char *openai_model_of(const char *body, size_t length);

void openai_completion_close(struct openai_completion *request);
void openai_chat_close(struct openai_chat *request);
void openai_embeddings_close(struct openai_embeddings *request);
void openai_text_close(struct openai_text *request);

/* The model's recommendation with what the request gives in its place. Biases stay the request's,
 * which must outlive the options. `seed` is for requests without one. */
struct sampler_options openai_sampler_options(const struct openai_sampling *sampling,
                                              const struct sampler_options *recommended,
                                              uint64_t seed);

/* Refuses ids that are not below the vocabulary, of prompts (which are the member `key`), of
 * logit_bias and of stop_token_ids. */
MUST_CHECK int openai_check_ids(const struct openai_prompts *prompts, const char *key,
                                size_t vocabulary, struct error *err);
MUST_CHECK int openai_check_tokens(const struct openai_generation *generation, size_t vocabulary,
                                   struct error *err);

/* ---- answers ---- */

/* What all answers to one request, and all events of its stream, repeat. */
struct openai_answer {
    const char *id; /* "cmpl-..." or "chatcmpl-...": the caller's choice */
    const char *model;
    int64_t created;                 /* seconds since 1970 */
    const struct language *language; /* for texts of tokens; NULL: a model without text */
    const char *experts;             /* JSON, what was asked of the gates; NULL: nothing */
    bool chat;                       /* chat.completion; else text_completion */
};

enum openai_finish { OPENAI_UNFINISHED, OPENAI_STOP, OPENAI_LENGTH };

/* Experts of one MoE layer for consecutive tokens. */
struct openai_routing_layer {
    const char *name;
    size_t top_k;
    const int32_t *experts; /* [tokens, top_k] */
    const float *weights;   /* [tokens, top_k] */
};

struct openai_routing {
    enum openai_routing_form form; /* not OPENAI_ROUTING_NONE */
    size_t tokens;
    const struct openai_routing_layer *layers;
    size_t layer_count;
};

/* An answer, or in a stream a piece of one. */
struct openai_choice {
    size_t index;
    const char *text; /* whole characters; may contain NULs */
    size_t length;
    enum openai_finish finish;
    bool logprobs;                       /* write them */
    const struct sampler_choice *tokens; /* of the text; logprob NaN: none (a prompt's first) */
    size_t token_count;
    const int32_t *text_offsets;          /* of the tokens: characters of the whole text before each
                                             (completions' logprobs); NULL: there is no text */
    const struct openai_routing *routing; /* NULL: none */
    const int32_t *token_ids; /* NULL: none; else token_count ids, for models without text */
};

struct openai_usage {
    size_t prompt_tokens, completion_tokens;
    size_t cached_tokens; /* of the prompt: found in the prefix cache */
};

/* The answer as a whole. A chat has one choice. */
void openai_write_answer(const struct openai_answer *answer, const struct openai_choice *choices,
                         size_t count, const struct openai_usage *usage, struct buffer *body);

/* One event of a stream: "data: {...}\n\n". `first`: a chat's first piece of a choice, which names
 * the role. `null_usage`: usage was asked for, so all events but the last say "usage": null. */
void openai_write_chunk(const struct openai_answer *answer, const struct openai_choice *choice,
                        bool first, bool null_usage, struct buffer *body);

/* The event with the usage, without choices; before the end where it was asked for. */
void openai_write_usage_chunk(const struct openai_answer *answer, const struct openai_usage *usage,
                              struct buffer *body);

/* "data: [DONE]\n\n" */
void openai_write_done(struct buffer *body);

/* vectors: [count, dimensions]. */
struct openai_vectors {
    const float *values;
    size_t count, dimensions;
    bool base64; /* f32, little-endian */
};
void openai_write_embeddings(const char *model, const struct openai_vectors *vectors,
                             size_t prompt_tokens, struct buffer *body);

void openai_write_tokens(const int32_t *ids, size_t count, struct buffer *body); /* /tokenize */
void openai_write_content(const char *text, size_t length, struct buffer *body); /* /detokenize */
void openai_write_prompt(const char *text, size_t length,
                         struct buffer *body); /* /apply-template */

/* GET /v1/models: OpenAI's "data" and KServe V1's "models" in one document. */
struct openai_model {
    const char *name;
    int64_t created;               /* seconds since 1970; when it was loaded */
    size_t context;                /* positions; 0: not a language model */
    bool generates, chats, embeds; /* which routes take it */
};
void openai_write_models(const struct openai_model *models, size_t count, struct buffer *body);

/* GET /v1/models/M, as OpenAI's clients read it; the members are to go into KServe's document:
 * without the braces. */
void openai_write_model_members(const struct openai_model *model, struct buffer *body);

/* ---- errors ---- */

/* {"error": {"message", "type", "param", "code"}}. A message that begins with a member's name in
 * quotes makes that the param. */
void openai_write_error(const struct error *err, struct buffer *body);

/* The same as an event, for a stream that cannot go on. */
void openai_write_error_chunk(const struct error *err, struct buffer *body);

#endif

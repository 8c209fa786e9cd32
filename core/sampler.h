/* Chooses the next token of a sequence from its logits: a pure function of the logits, the
 * sequence's own history, its options, its seed and the position. Nothing of it depends on the
 * batch, on threads or on time, so the same request gives the same tokens.
 *
 * The steps and their order are those of Hugging Face's generate(), with OpenAI's two penalties
 * behind its own; l is a token's logit:
 *
 *   logit_bias            l += bias
 *   repetition_penalty    l = l > 0 ? l / r : l * r; tokens of the prompt and of the answer
 *   frequency, presence   l -= count * f + (count > 0) * p; tokens of the answer
 *   temperature 0         the largest l; of equal ones the lower id
 *   temperature t         l /= t
 *   top_k                 the k largest l; of equal ones the lower ids
 *   top_p                 the fewest of these, likeliest first, whose probabilities reach top_p
 *   min_p                 of these, those with at least min_p times the largest probability
 *   draw                  from the softmax of what is left, by a number in [0, 1) that is a
 *                         hash of (seed, position)
 *
 * Log probabilities are those of the model: log softmax of the logits as they come, before any
 * step. They do not change with the options, and sum up to a text's likelihood. */
#ifndef CORE_SAMPLER_H
#define CORE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "core/sampler_history.h"

/* OpenAI's limits: alternatives listed with a token, and entries of logit_bias. */
enum { SAMPLER_MAX_TOP = 20, SAMPLER_MAX_BIASES = 1024 };

struct sampler_bias {
    int32_t token; /* outside the vocabulary: without effect */
    float bias;
};

/* Start from SAMPLER_DEFAULTS, which are OpenAI's. */
struct sampler_options {
    float temperature;        /* from 0; 0: greedy */
    size_t top_k;             /* 0: all */
    float top_p;              /* above 0, up to 1; 1: all */
    float min_p;              /* from 0 to 1; 0: all */
    float repetition_penalty; /* above 0; 1: none */
    float frequency_penalty;  /* 0: none */
    float presence_penalty;   /* 0: none */
    uint64_t seed;
    const struct sampler_bias *biases; /* not owned; must outlive the options */
    size_t bias_count;
};

#define SAMPLER_DEFAULTS                                                                           \
    ((struct sampler_options){.temperature = 1, .top_p = 1, .repetition_penalty = 1})

/* Whether these options look at a history; without, sampler_step.history may be NULL. */
bool sampler_needs_history(const struct sampler_options *options);

/* ---- choosing ---- */

/* Working memory for one vocabulary, of one thread at a time; choosing allocates nothing. NULL with
 * an error when there is no memory; caller frees. */
struct sampler_scratch;
MUST_CHECK struct sampler_scratch *sampler_scratch_new(size_t vocabulary, struct error *err);
void sampler_scratch_free(struct sampler_scratch *scratch);

/* What one choice is made from. */
struct sampler_step {
    const struct sampler_options *options;
    const struct sampler_history *history; /* NULL: nothing occurred yet */
    const float *logits;                   /* [vocabulary] of the scratch; not changed */
    uint64_t position;                     /* of the token that is chosen, in its sequence */
    bool logprobs;                         /* fill in the choice's logprob and top */
    size_t top;                            /* alternatives wanted, at most SAMPLER_MAX_TOP */
};

struct sampler_alternative {
    int32_t token;
    float logprob; /* natural logarithm; -infinity: impossible */
};

/* A token with its log probability and the likeliest tokens of its position. */
struct sampler_choice {
    int32_t token;
    float logprob; /* 0 unless it was asked for */
    size_t top_count;
    struct sampler_alternative top[SAMPLER_MAX_TOP]; /* likeliest first; of equal ones lower ids */
};

/* ERROR_INTERNAL: the logits have a NaN or +infinity, or nothing but -infinity. */
MUST_CHECK int sampler_choose(const struct sampler_step *step, struct sampler_scratch *scratch,
                              struct sampler_choice *choice, struct error *err);

/* The same for a token that is given: how likely the model found it, for prompts that are scored
 * (echo). `logits` are those of the position before it; `token` is within the vocabulary. */
MUST_CHECK int sampler_score(const float *logits, int32_t token, size_t top,
                             struct sampler_scratch *scratch, struct sampler_choice *choice,
                             struct error *err);

/* What sampler_choose() draws from, for temperatures above 0: *entries receives tokens with their
 * probabilities but for a factor (sampler_select.h), in the scratch. Returns how many; 0 with an
 * error. */
struct sampler_entry;
MUST_CHECK size_t sampler_keep(const struct sampler_step *step, struct sampler_scratch *scratch,
                               const struct sampler_entry **entries, struct error *err);

/* The number in [0, 1) that a draw uses. */
double sampler_random(uint64_t seed, uint64_t position);

#endif

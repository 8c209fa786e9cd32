/* The tokens of one sequence with how often they occurred: what penalties look at. */
#ifndef CORE_SAMPLER_HISTORY_H
#define CORE_SAMPLER_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct sampler_seen {
    int32_t token;
    uint32_t answered; /* times in the answer */
};

/* A hash table. Its size is the number of different tokens. */
struct sampler_history {
    struct sampler_seen *seen; /* owned; in order of first occurrence */
    size_t count, most;
    uint32_t *slots; /* owned; 0: free, else a place in `seen` + 1 */
    size_t slot_mask;
};

/* For sequences of at most `tokens` tokens, prompt and answer together. NULL with an error when
 * there is no memory; caller frees. Adding never fails. */
MUST_CHECK struct sampler_history *sampler_history_new(size_t tokens, struct error *err);
void sampler_history_free(struct sampler_history *history);

/* Counts a token of the prompt, or one of the answer. */
void sampler_history_prompt(struct sampler_history *history, int32_t token);
void sampler_history_answer(struct sampler_history *history, int32_t token);

#endif

/* What the parts of the sampler share: history, working memory, and entries to select from. */
#ifndef CORE_SAMPLER_PRIVATE_H
#define CORE_SAMPLER_PRIVATE_H

#include "core/sampler.h"

/* ---- history ---- */

struct sampler_seen {
    int32_t token;
    uint32_t answered; /* times in the answer */
};

struct sampler_history {
    struct sampler_seen *seen; /* owned; in order of first occurrence */
    size_t count, most;
    uint32_t *slots; /* owned; 0: free, else a place in `seen` + 1 */
    size_t slot_mask;
};

/* ---- selection ---- */

/* A token and what it is ordered by: its logit or its weight. Of equal keys the lower id is better.
 */
struct sampler_entry {
    float key;
    int32_t token;
};

/* The k best of `count` values, best first; k <= count. */
void sampler_select_best(const float *values, size_t count, size_t k, struct sampler_entry *best);

/* Keeps the fewest entries whose keys reach the share `top_p` of all, best first, at least one.
 * Returns how many. */
size_t sampler_select_mass(struct sampler_entry *entries, size_t count, double top_p);

/* Keeps entries with at least this key, in their order. Returns how many. */
size_t sampler_drop_below(struct sampler_entry *entries, size_t count, double least);

double sampler_sum(const struct sampler_entry *entries, size_t count);

/* ---- choosing ---- */

struct sampler_scratch {
    size_t vocabulary;
    float *values;                 /* owned; logits after penalties */
    float *weights;                /* owned */
    struct sampler_entry *entries; /* owned */
};

/* What a token is drawn from: puts tokens and their weights, probabilities but for a factor, into
 * scratch->entries. Returns how many; 0 with an error as sampler_choose() has. For temperatures
 * above 0. */
MUST_CHECK size_t sampler_keep(const struct sampler_step *step, struct sampler_scratch *scratch,
                               struct error *err);

#endif

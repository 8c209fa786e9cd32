/* What is kept of a vocabulary: the best entries, by count or by share. */
#ifndef CORE_SAMPLER_SELECT_H
#define CORE_SAMPLER_SELECT_H

#include <stddef.h>
#include <stdint.h>

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

#endif

/* Weights are exp((l - max) / temperature): the likeliest token's is 1, and probabilities are
 * weights over their sum, so that no step has to normalize. */
#include "core/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/math.h"
#include "core/memory.h"
#include "core/sampler_select.h"

enum { LANES = 8 };

/* Temperatures below this are 0: their inverse times a difference of logits would overflow. */
#define COLDEST 1e-5f

struct sampler_scratch {
    size_t vocabulary;
    float *values;                 /* owned; logits after penalties */
    float *weights;                /* owned */
    struct sampler_entry *entries; /* owned */
};

struct sampler_scratch *sampler_scratch_new(size_t vocabulary, struct error *err)
{
    struct sampler_scratch *scratch = xcalloc(1, sizeof *scratch);
    scratch->vocabulary = vocabulary;
    scratch->values = calloc_checked(vocabulary, sizeof *scratch->values, err);
    scratch->weights = calloc_checked(vocabulary, sizeof *scratch->weights, err);
    scratch->entries = calloc_checked(vocabulary, sizeof *scratch->entries, err);
    if (scratch->values && scratch->weights && scratch->entries)
        return scratch;
    sampler_scratch_free(scratch);
    return NULL;
}

void sampler_scratch_free(struct sampler_scratch *scratch)
{
    if (!scratch)
        return;
    free(scratch->values);
    free(scratch->weights);
    free(scratch->entries);
    free(scratch);
}

/* ---- loops over the vocabulary ---- */

/* The largest value; false: there is a NaN or +infinity, or nothing finite. */
VECTORIZED static bool largest(const float *values, size_t count, float *max)
{
    float lanes[LANES];
    int bad = 0;
    for (size_t lane = 0; lane < LANES; lane++)
        lanes[lane] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            float v = values[i + lane];
            lanes[lane] = v > lanes[lane] ? v : lanes[lane];
            bad |= !(v < INFINITY);
        }
    }
    for (; i < count; i++) {
        lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
        bad |= !(values[i] < INFINITY);
    }
    *max = max_of(lanes, LANES);
    return !bad && *max > -INFINITY;
}

/* weights = exp((values - max) * scale) */
VECTORIZED static void weigh(const float *values, size_t count, float max, float scale,
                             float *weights)
{
    for (size_t i = 0; i < count; i++)
        weights[i] = exp_below((values[i] - max) * scale);
}

/* In an order that is the same for every vector width. */
VECTORIZED static double sum_of_weights(const float *weights, size_t count)
{
    double lanes[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)weights[i + lane];
    for (; i < count; i++)
        sum += (double)weights[i];
    for (size_t lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static int not_finite(struct error *err)
{
    return error_set(err, ERROR_INTERNAL,
                     "the model's logits are not finite: no token can be chosen");
}

/* ---- penalties ---- */

bool sampler_needs_history(const struct sampler_options *options)
{
    return options->repetition_penalty != 1 || options->frequency_penalty != 0 ||
           options->presence_penalty != 0;
}

static float penalize(const struct sampler_options *options, const struct sampler_seen *seen,
                      float value)
{
    float r = options->repetition_penalty;
    if (r != 1) /* of an infinite value, which a factor of 1 must not touch either */
        value = value > 0 ? value / r : value * r;
    return value - (float)seen->answered * options->frequency_penalty -
           (seen->answered > 0 ? options->presence_penalty : 0);
}

/* The logits that tokens are chosen by: the step's own where nothing changes them. */
static const float *adjusted(const struct sampler_step *step, struct sampler_scratch *scratch)
{
    const struct sampler_options *options = step->options;
    bool history = step->history && sampler_needs_history(options);
    if (options->bias_count == 0 && !history)
        return step->logits;
    float *values = scratch->values;
    memcpy(values, step->logits, scratch->vocabulary * sizeof *values);
    for (size_t i = 0; i < options->bias_count; i++) {
        const struct sampler_bias *bias = &options->biases[i];
        if (bias->token >= 0 && (size_t)bias->token < scratch->vocabulary)
            values[bias->token] += bias->bias;
    }
    for (size_t i = 0; history && i < step->history->count; i++) {
        const struct sampler_seen *seen = &step->history->seen[i];
        if (seen->token >= 0 && (size_t)seen->token < scratch->vocabulary)
            values[seen->token] = penalize(options, seen, values[seen->token]);
    }
    return values;
}

/* ---- drawing ---- */

/* Finalizer of SplitMix64: every bit of the result depends on every bit of `x`. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* Number `position` of the SplitMix64 sequence that begins at the hash of the seed. */
double sampler_random(uint64_t seed, uint64_t position)
{
    uint64_t state = mix(seed) + (position + 1) * UINT64_C(0x9E3779B97F4A7C15);
    return (double)(mix(state) >> 11) * 0x1p-53;
}

/* Puts the weights of what top_k keeps into the entries. Returns how many. */
static size_t weigh_entries(const struct sampler_options *options, const float *values, float max,
                            struct sampler_scratch *scratch)
{
    struct sampler_entry *entries = scratch->entries;
    float scale = 1 / options->temperature;
    size_t count = scratch->vocabulary;
    if (options->top_k > 0 && options->top_k < count) {
        count = options->top_k;
        sampler_select_best(values, scratch->vocabulary, count, entries);
        for (size_t i = 0; i < count; i++)
            entries[i].key = exp_below((entries[i].key - max) * scale);
        return count;
    }
    weigh(values, count, max, scale, scratch->weights);
    for (size_t i = 0; i < count; i++)
        entries[i] = (struct sampler_entry){scratch->weights[i], (int32_t)i};
    return count;
}

/* Finds the largest value that tokens are chosen by. */
static int find_values(const struct sampler_step *step, struct sampler_scratch *scratch,
                       const float **values, float *max, struct error *err)
{
    *values = adjusted(step, scratch);
    return largest(*values, scratch->vocabulary, max) ? 0 : not_finite(err);
}

static size_t keep(const struct sampler_options *options, const float *values, float max,
                   struct sampler_scratch *scratch)
{
    size_t count = weigh_entries(options, values, max, scratch);
    if (options->top_p < 1)
        count = sampler_select_mass(scratch->entries, count, (double)options->top_p);
    return options->min_p > 0 ? sampler_drop_below(scratch->entries, count, (double)options->min_p)
                              : count;
}

size_t sampler_keep(const struct sampler_step *step, struct sampler_scratch *scratch,
                    const struct sampler_entry **entries, struct error *err)
{
    const float *values;
    float max;
    *entries = scratch->entries;
    if (find_values(step, scratch, &values, &max, err) != 0)
        return 0;
    return keep(step->options, values, max, scratch);
}

/* The entry that the number in [0, 1) falls on. */
static int32_t draw(const struct sampler_entry *entries, size_t count, double random)
{
    double target = random * sampler_sum(entries, count), passed = 0;
    size_t chosen = 0;
    for (size_t i = 0; i < count && passed <= target; i++) {
        passed += (double)entries[i].key;
        if (entries[i].key > 0)
            chosen = i;
    }
    return entries[chosen].token;
}

static int32_t first_at(const float *values, float max)
{
    size_t i = 0;
    while (values[i] < max)
        i++;
    return (int32_t)i;
}

/* ---- log probabilities ---- */

int sampler_score(const float *logits, int32_t token, size_t top, struct sampler_scratch *scratch,
                  struct sampler_choice *choice, struct error *err)
{
    float max;
    size_t count = scratch->vocabulary;
    assert(token >= 0 && (size_t)token < count);
    if (!largest(logits, count, &max))
        return not_finite(err);
    weigh(logits, count, max, 1, scratch->weights);
    double normalizer = (double)max + log(sum_of_weights(scratch->weights, count));
    choice->token = token;
    choice->logprob = (float)((double)logits[token] - normalizer);
    choice->top_count = top < SAMPLER_MAX_TOP ? top : SAMPLER_MAX_TOP;
    if (choice->top_count > count)
        choice->top_count = count;
    sampler_select_best(logits, count, choice->top_count, scratch->entries);
    for (size_t i = 0; i < choice->top_count; i++)
        choice->top[i] = (struct sampler_alternative){
            scratch->entries[i].token, (float)((double)scratch->entries[i].key - normalizer)};
    return 0;
}

int sampler_choose(const struct sampler_step *step, struct sampler_scratch *scratch,
                   struct sampler_choice *choice, struct error *err)
{
    const struct sampler_options *options = step->options;
    const float *values;
    float max;
    if (find_values(step, scratch, &values, &max, err) != 0)
        return -1;
    int32_t token = options->temperature < COLDEST
                        ? first_at(values, max)
                        : draw(scratch->entries, keep(options, values, max, scratch),
                               sampler_random(options->seed, step->position));
    if (step->logprobs)
        return sampler_score(step->logits, token, step->top, scratch, choice, err);
    choice->token = token;
    choice->logprob = 0;
    choice->top_count = 0;
    return 0;
}

/* Angles are computed in double: cosine and sine of position * frequency. For the positions of a
 * row that happens at load, for those of a sequence when one is there: tables for a whole context
 * would be larger than what they save.
 *
 * Frequencies are theta^(-j / pairs), or listed. A "scaling" changes them as the models that were
 * trained on short texts and serve long ones do; core/CHECKPOINT.md has the formulas. */
#include "core/layers/rotary.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/text.h"

enum { LINEAR, LLAMA3, YARN };

struct scaling {
    int kind;
    double factor, original, low, high; /* low, high: of LLAMA3; beta_slow and beta_fast of YARN */
    bool truncate;
};

static const double TWO_PI = 6.283185307179586;

static int read_number(struct config_node *node, const char *key, const double *otherwise,
                       double *value, struct error *err)
{
    if (config_real(node, key, otherwise, value, err) != 0)
        return -1;
    return *value > 0 ? 0 : config_error(node, key, err, "expected a number above 0");
}

static int read_scaling(struct scaling *scaling, struct config_node *node, struct error *err)
{
    static const char *const kinds[] = {"linear", "llama3", "yarn", NULL};
    static const double slow = 1, fast = 32;
    int kind;
    if (config_choice(node, "type", kinds, -1, &kind, err) != 0 ||
        read_number(node, "factor", NULL, &scaling->factor, err) != 0)
        return -1;
    scaling->kind = kind;
    if (kind != LINEAR && read_number(node, "original", NULL, &scaling->original, err) != 0)
        return -1;
    if (kind == LLAMA3 && (read_number(node, "low", NULL, &scaling->low, err) != 0 ||
                           read_number(node, "high", NULL, &scaling->high, err) != 0))
        return -1;
    if (kind == LLAMA3 && scaling->low >= scaling->high)
        return config_error(node, "low", err, "expected less than \"high\"");
    if (kind == YARN && (read_number(node, "slow", &slow, &scaling->low, err) != 0 ||
                         read_number(node, "fast", &fast, &scaling->high, err) != 0 ||
                         config_flag(node, "truncate", true, &scaling->truncate, err) != 0))
        return -1;
    return config_done(node, err);
}

/* Long waves are stretched by the factor, short ones not, those between partly. */
static double llama3(const struct scaling *scaling, double frequency)
{
    const double wave = TWO_PI / frequency, turns = scaling->original / wave;
    if (turns < scaling->low)
        return frequency / scaling->factor;
    if (turns > scaling->high)
        return frequency;
    const double share = (turns - scaling->low) / (scaling->high - scaling->low);
    return (1 - share) * frequency / scaling->factor + share * frequency;
}

/* The pair, as a real number, that turns so many times over the original length. */
static double yarn_pair(const struct scaling *scaling, double turns, size_t dims, double theta)
{
    return (double)dims * log(scaling->original / (turns * TWO_PI)) / (2 * log(theta));
}

static double yarn(const struct scaling *scaling, double frequency, size_t pair, size_t dims,
                   double theta)
{
    double low = yarn_pair(scaling, scaling->high, dims, theta);
    double high = yarn_pair(scaling, scaling->low, dims, theta);
    low = fmax(scaling->truncate ? floor(low) : low, 0);
    high = fmin(scaling->truncate ? ceil(high) : high, (double)dims - 1);
    high += high == low ? 0.001 : 0;
    const double ramp = fmin(fmax(((double)pair - low) / (high - low), 0), 1);
    return frequency / scaling->factor * ramp + frequency * (1 - ramp);
}

static double scaled(const struct scaling *scaling, double frequency, size_t pair, size_t dims,
                     double theta)
{
    switch (scaling->kind) {
    case LINEAR:
        return frequency / scaling->factor;
    case LLAMA3:
        return llama3(scaling, frequency);
    default:
        return yarn(scaling, frequency, pair, dims, theta);
    }
}

/* [pairs] from "theta" and "scaling"; the caller frees. */
static int compute_frequencies(struct config_node *node, size_t pairs, double **frequencies,
                               struct error *err)
{
    static const double otherwise = 10000;
    struct config_node own;
    struct scaling scaling = {.factor = 1};
    double theta;
    if (read_number(node, "theta", &otherwise, &theta, err) != 0)
        return -1;
    if (theta == 1)
        return config_error(node, "theta", err, "expected another number than 1");
    if (config_has(node, "scaling") &&
        (config_object(node, "scaling", &own, err) != 0 || read_scaling(&scaling, &own, err) != 0))
        return -1;
    *frequencies = calloc_checked(pairs, sizeof **frequencies, err);
    for (size_t j = 0; *frequencies && j < pairs; j++)
        (*frequencies)[j] =
            scaled(&scaling, pow(theta, -(double)j / (double)pairs), j, 2 * pairs, theta);
    return *frequencies ? 0 : -1;
}

/* [pairs] listed or computed. */
static int read_frequencies(struct config_node *node, size_t pairs, double **frequencies,
                            struct error *err)
{
    size_t count;
    if (!config_has(node, "frequencies"))
        return compute_frequencies(node, pairs, frequencies, err);
    if (config_reals(node, "frequencies", frequencies, &count, err) != 0)
        return -1;
    if (count == pairs)
        return 0;
    free(*frequencies);
    *frequencies = NULL;
    return config_error(node, "frequencies", err, "%zu number%s for %zu pair%s", count,
                        text_s(count), pairs, text_s(pairs));
}

void rotary_angles(const struct rotary *rotary, size_t position, float *cosine, float *sine)
{
    for (size_t j = 0; j < rotary->pairs; j++) {
        const double angle = (double)position * rotary->frequencies[j];
        cosine[j] = (float)(cos(angle) * rotary->factor);
        sine[j] = (float)(sin(angle) * rotary->factor);
    }
}

static int fill_tables(struct rotary *rotary, size_t positions, struct error *err)
{
    size_t pairs = rotary->pairs;
    if (!(rotary->cosine = calloc_checked(positions * pairs, sizeof *rotary->cosine, err)) ||
        !(rotary->sine = calloc_checked(positions * pairs, sizeof *rotary->sine, err)))
        return -1;
    for (size_t position = 0; position < positions; position++)
        rotary_angles(rotary, position, rotary->cosine + position * pairs,
                      rotary->sine + position * pairs);
    return 0;
}

int rotary_build(struct rotary *rotary, const struct scope *scope, struct config_node *node,
                 size_t head_dim, size_t positions, struct error *err)
{
    static const double one = 1;
    struct config_node own;
    int64_t dims;
    bool interleaved;
    if (!config_has(node, "rotary"))
        return 0;
    if (config_object(node, "rotary", &own, err) != 0 ||
        config_integer(&own, "dims", (int64_t)head_dim, within(1, (int64_t)head_dim), &dims, err) !=
            0 ||
        config_flag(&own, "interleaved", false, &interleaved, err) != 0 ||
        config_real(&own, "factor", &one, &rotary->factor, err) != 0)
        return -1;
    if (dims % 2 != 0)
        return config_error(&own, "dims", err, "%lld number%s cannot make pairs", (long long)dims,
                            text_s((uint64_t)dims));
    rotary->pairs = (size_t)dims / 2;
    rotary->first = interleaved ? 2 : 1;
    rotary->distance = interleaved ? 1 : rotary->pairs;
    if (read_frequencies(&own, rotary->pairs, &rotary->frequencies, err) != 0 ||
        scope_take(scope, &own, "cosines and sines", positions * rotary->pairs,
                   2 * sizeof *rotary->cosine, err) != 0 ||
        (!scope->loading->headers_only && fill_tables(rotary, positions, err) != 0))
        return -1;
    return config_done(&own, err);
}

void rotary_close(struct rotary *rotary)
{
    free(rotary->frequencies);
    free(rotary->cosine);
    free(rotary->sine);
}

void rotary_turn(const struct rotary *rotary, size_t position, float *x)
{
    size_t at = position * rotary->pairs;
    if (rotary->pairs == 0)
        return; /* and there are no tables */
    rotary_turn_by(rotary, rotary->cosine + at, rotary->sine + at, x);
}

void rotary_turn_by(const struct rotary *rotary, const float *cosine, const float *sine, float *x)
{
    for (size_t j = 0; j < rotary->pairs; j++) {
        float *a = x + j * rotary->first, *b = a + rotary->distance;
        const float before = *a;
        *a = before * cosine[j] - *b * sine[j];
        *b = *b * cosine[j] + before * sine[j];
    }
}

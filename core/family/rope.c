/* Scalings that depend on a sequence's length are translated for the lengths up to which they do
 * not, and the context ends there: a sequence is never turned by other angles while it grows. */
#include "core/family/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"

/* "rope_parameters" or "rope_scaling", and what may stand beside it in the root. */
struct rope {
    struct config_node own;
    bool has_own;
    double theta, partial, original;
    size_t dims, context;
};

static double own_real(struct translation *t, struct rope *rope, const char *key, double otherwise)
{
    double value = otherwise;
    if (translation_failed(t) || !rope->has_own ||
        config_real(&rope->own, key, &otherwise, &value, t->err) != 0)
        return otherwise;
    return value;
}

/* A number that the type cannot do without. */
static double own_number(struct translation *t, struct rope *rope, const char *key)
{
    double value = 1;
    if (!translation_failed(t) && config_real(&rope->own, key, NULL, &value, t->err) == 0 &&
        !(value > 0))
        config_error(&rope->own, key, t->err, "expected a number above 0");
    return value;
}

static void open_own(struct translation *t, struct rope *rope)
{
    const char *key = config_has(t->config, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    rope->has_own = config_has(t->config, key);
    if (strcmp(key, "rope_parameters") == 0 && config_has(t->config, "rope_scaling"))
        config_error(t->config, key, t->err,
                     "\"rope_scaling\" is its older name: one of the two must go");
    if (!rope->has_own || config_object(t->config, key, &rope->own, t->err) != 0) {
        rope->has_own = false;
        return;
    }
    config_drop_nulls(&rope->own);
}

static void read_common(struct translation *t, struct rope *rope,
                        const struct rope_defaults *otherwise, size_t head_dim)
{
    double root_theta = read_real(t, "rope_theta", otherwise->theta);
    double root_partial = read_real(t, "partial_rotary_factor", otherwise->partial);
    rope->theta = own_real(t, rope, "rope_theta", root_theta);
    rope->partial = own_real(t, rope, "partial_rotary_factor", root_partial);
    rope->original = own_real(t, rope, "original_max_position_embeddings", (double)rope->context);
    rope->original = read_real(t, "original_max_position_embeddings", rope->original);
    if (!(rope->partial > 0 && rope->partial <= 1) || !(rope->theta > 1) || !(rope->original >= 1))
        error_set(t->err, ERROR_INVALID,
                  "config.json: rope_theta above 1, partial_rotary_factor from 0 to 1 and "
                  "original_max_position_embeddings of at least 1 are expected");
    rope->dims = translation_failed(t) ? 2 : (size_t)((double)head_dim * rope->partial);
    if (rope->dims % 2 != 0 || rope->dims == 0)
        error_set(t->err, ERROR_INVALID, "config.json: %zu number%s of a head cannot make pairs",
                  rope->dims, text_s(rope->dims));
}

/* ---- the types ---------------------------------------------------------------------------- */

double rope_magnitude(double factor, double scale)
{
    return factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1;
}

static void translate_yarn(struct translation *t, struct rope *rope, json_t *rotary)
{
    double factor = own_real(t, rope, "factor", (double)rope->context / rope->original);
    double fast = own_real(t, rope, "beta_fast", 32), slow = own_real(t, rope, "beta_slow", 1);
    double scale = own_real(t, rope, "mscale", 0), all = own_real(t, rope, "mscale_all_dim", 0);
    double attention = scale != 0 && all != 0
                           ? rope_magnitude(factor, scale) / rope_magnitude(factor, all)
                           : rope_magnitude(factor, 1);
    attention = own_real(t, rope, "attention_factor", attention);
    bool truncate = true;
    if (translation_failed(t) || config_flag(&rope->own, "truncate", true, &truncate, t->err) != 0)
        return;
    json_object_set_new(rotary, "factor", json_real(attention));
    json_object_set_new(rotary, "scaling",
                        json_pack("{s:s, s:f, s:f, s:f, s:f, s:b}", "type", "yarn", "factor",
                                  factor, "original", rope->original, "fast", fast, "slow", slow,
                                  "truncate", truncate));
}

static void translate_llama3(struct translation *t, struct rope *rope, json_t *rotary)
{
    double factor = own_number(t, rope, "factor"), low = own_number(t, rope, "low_freq_factor");
    double high = own_number(t, rope, "high_freq_factor");
    json_object_set_new(rotary, "scaling",
                        json_pack("{s:s, s:f, s:f, s:f, s:f}", "type", "llama3", "factor", factor,
                                  "original", rope->original, "low", low, "high", high));
}

static void translate_linear(struct translation *t, struct rope *rope, json_t *rotary)
{
    json_object_set_new(
        rotary, "scaling",
        json_pack("{s:s, s:f}", "type", "linear", "factor", own_number(t, rope, "factor")));
}

/* Up to the longest position the base is the unscaled one. A fixed "alpha" (Hunyuan) changes it. */
static void translate_dynamic(struct translation *t, struct rope *rope, json_t *rotary)
{
    double dims = (double)rope->dims, alpha = own_real(t, rope, "alpha", 0);
    own_real(t, rope, "factor", 1);
    own_real(t, rope, "beta_fast", 0); /* Hunyuan's configs carry YaRN's keys, which it ignores */
    own_real(t, rope, "beta_slow", 0);
    own_real(t, rope, "mscale", 0);
    own_real(t, rope, "mscale_all_dim", 0);
    if (alpha > 0 && dims > 2)
        json_object_set_new(rotary, "theta",
                            json_real(rope->theta * pow(alpha, dims / (dims - 2))));
}

/* The short factors, for sequences up to the original length. */
static void translate_longrope(struct translation *t, struct rope *rope, json_t *rotary)
{
    double *factors = NULL, ratio = (double)rope->context / rope->original;
    size_t count = 0, pairs = rope->dims / 2;
    ratio = own_real(t, rope, "factor", ratio);
    double attention = ratio > 1 ? sqrt(1 + log(ratio) / log(rope->original)) : 1;
    attention = own_real(t, rope, "attention_factor", attention);
    attention = own_real(t, rope, "short_mscale", attention);
    own_real(t, rope, "long_mscale", 1);
    config_has(&rope->own, "long_factor");
    if (translation_failed(t) ||
        config_reals(&rope->own, "short_factor", &factors, &count, t->err) != 0)
        return;
    json_t *frequencies = json_array();
    if (count != pairs)
        config_error(&rope->own, "short_factor", t->err, "%zu number%s for %zu pair%s", count,
                     text_s(count), pairs, text_s(pairs));
    for (size_t j = 0; j < count && !translation_failed(t); j++) {
        if (!(factors[j] > 0))
            config_error(&rope->own, "short_factor", t->err, "entry %zu is not above 0", j);
        double frequency = pow(rope->theta, -(double)j / (double)pairs) / factors[j];
        json_array_append_new(frequencies, json_real(frequency));
    }
    free(factors);
    json_object_del(rotary, "theta");
    json_object_set_new(rotary, "frequencies", frequencies);
    json_object_set_new(rotary, "factor", json_real(attention));
    if (rope->original < (double)rope->context)
        rope->context = (size_t)rope->original;
}

static void translate_default(struct translation *t, struct rope *rope, json_t *rotary)
{
    (void)t, (void)rope, (void)rotary;
}

static const struct {
    const char *name;
    void (*translate)(struct translation *t, struct rope *rope, json_t *rotary);
} TYPES[] = {{"default", translate_default}, {"linear", translate_linear},
             {"dynamic", translate_dynamic}, {"llama3", translate_llama3},
             {"yarn", translate_yarn},       {"longrope", translate_longrope}};
enum { TYPE_COUNT = sizeof TYPES / sizeof *TYPES };

static void translate_type(struct translation *t, struct rope *rope, json_t *rotary)
{
    const char *names[TYPE_COUNT + 1] = {NULL};
    int type = 0;
    if (!rope->has_own || translation_failed(t))
        return;
    for (size_t i = 0; i < TYPE_COUNT; i++)
        names[i] = TYPES[i].name;
    const char *key = config_has(&rope->own, "rope_type") ? "rope_type" : "type";
    config_has(&rope->own, "type");
    if (config_choice(&rope->own, key, names, 0, &type, t->err) != 0)
        return;
    TYPES[type].translate(t, rope, rotary);
    if (!translation_failed(t) && config_done(&rope->own, t->err) != 0)
        json_object_clear(rotary);
}

json_t *rope_translate(struct translation *t, const struct rope_defaults *otherwise,
                       size_t head_dim, size_t *context)
{
    struct rope rope = {.context = *context};
    if (translation_failed(t))
        return NULL;
    open_own(t, &rope);
    read_common(t, &rope, otherwise, head_dim);
    json_t *rotary = json_pack("{s:I, s:b, s:f}", "dims", (json_int_t)rope.dims, "interleaved",
                               otherwise->interleaved, "theta", rope.theta);
    translate_type(t, &rope, rotary);
    *context = rope.context;
    if (!translation_failed(t))
        return rotary;
    json_decref(rotary);
    return NULL;
}

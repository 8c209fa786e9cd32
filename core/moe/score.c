/* What a gate makes of its logits: one row for each score. */
#include <string.h>

#include "core/dense/math.h"
#include "core/moe/policy.h"

static float softmax_score(const struct gate_policy *policy, const float *logits, float *scores,
                           float *p)
{
    float entropy;
    softmax(logits, policy->experts, p, &entropy);
    memcpy(scores, p, policy->experts * sizeof *scores);
    return entropy;
}

const struct gate_score score_softmax = {.name = "softmax", .score = softmax_score};

/* Scores that do not sum to 1: their shares are the distribution. Returns its entropy. */
static float share_scores(const struct gate_policy *policy, const float *scores, float *p)
{
    float entropy = 0;
    memcpy(p, scores, policy->experts * sizeof *p);
    divide_by(sum_of(p, policy->experts), p, policy->experts);
    for (size_t i = 0; i < policy->experts; i++)
        if (p[i] > 0)
            entropy -= p[i] * log_of(p[i]);
    return entropy;
}

static float sigmoid_score(const struct gate_policy *policy, const float *logits, float *scores,
                           float *p)
{
    for (size_t i = 0; i < policy->experts; i++)
        scores[i] = sigmoid(logits[i]);
    return share_scores(policy, scores, p);
}

const struct gate_score score_sigmoid = {.name = "sigmoid", .score = sigmoid_score};

static float sqrt_softplus_score(const struct gate_policy *policy, const float *logits,
                                 float *scores, float *p)
{
    for (size_t i = 0; i < policy->experts; i++)
        scores[i] = sqrtf(softplus(logits[i]));
    return share_scores(policy, scores, p);
}

const struct gate_score score_sqrt_softplus = {
    .name = "sqrt_softplus", .format = 3, .score = sqrt_softplus_score};

/* The logit itself; its distribution is the softmax. */
static float plain_score(const struct gate_policy *policy, const float *logits, float *scores,
                         float *p)
{
    float entropy;
    softmax(logits, policy->experts, p, &entropy);
    memcpy(scores, logits, policy->experts * sizeof *scores);
    return entropy;
}

const struct gate_score score_none = {.name = "none", .is_signed = true, .score = plain_score};

/* ---- sparsemixer -------------------------------------------------------------------------- */

/* Two experts, each weighed by its softmax among those within the jitter of it: SparseMixer's
 * inference form (Phi-3.5-MoE). */
static int check_sparsemixer(struct gate_policy *policy, struct config_node *node,
                             struct error *err)
{
    const double otherwise = 0.01;
    double jitter;
    if (policy->top_k != 2)
        return config_error(node, "top_k", err, "score 'sparsemixer' needs top_k 2");
    if (policy->normalize != &normalize_none)
        return config_error(node, "normalize", err, "score 'sparsemixer' needs normalize 'none'");
    if (config_real(node, "jitter", &otherwise, &jitter, err) != 0)
        return -1;
    if (jitter < 0)
        return config_error(node, "jitter", err, "expected a number of at least 0");
    policy->jitter = (float)jitter;
    return 0;
}

/* Experts whose key is -infinity do not count: their group was not kept, or they were the best
 * before. */
static float jittered_weight(const struct gate_policy *policy, const struct choice *choice,
                             int32_t best)
{
    const float *logits = choice->logits, max = logits[best];
    float sum = 0;
    for (size_t i = 0; i < policy->experts; i++) {
        const bool masked =
            (max - logits[i]) / fmaxf(fabsf(logits[i]), max) > 2.0f * policy->jitter;
        if (choice->keys[i] > -INFINITY && !masked)
            sum += exp_of(logits[i] - max);
    }
    return 1.0f / sum;
}

static void weigh_jittered(const struct gate_policy *policy, const struct choice *choice,
                           float *weights)
{
    weights[0] = jittered_weight(policy, choice, choice->expert[0]);
    choice->keys[choice->expert[0]] = -INFINITY;
    weights[1] = jittered_weight(policy, choice, choice->expert[1]);
}

const struct gate_score score_sparsemixer = {.name = "sparsemixer",
                                             .format = 2,
                                             .no_bias = true,
                                             .fixed_top_k = true,
                                             .check = check_sparsemixer,
                                             .score = plain_score,
                                             .weigh = weigh_jittered};

/* ---- the table ---------------------------------------------------------------------------- */

static const struct gate_score *const SCORES[] = {&score_softmax, &score_sigmoid, &score_none,
                                                  &score_sparsemixer, &score_sqrt_softplus};

const struct gate_score *score_read(struct config_node *node, int format, struct error *err)
{
    enum { COUNT = sizeof SCORES / sizeof *SCORES };
    const char *names[COUNT + 1] = {NULL};
    int index;
    for (size_t i = 0; i < COUNT; i++)
        names[i] = SCORES[i]->name;
    if (config_choice(node, "score", names, 0, &index, err) != 0)
        return NULL;
    if (SCORES[index]->format <= format)
        return SCORES[index];
    config_error(node, "score", err, "'%s' needs \"format_version\": %d", names[index],
                 SCORES[index]->format);
    return NULL;
}

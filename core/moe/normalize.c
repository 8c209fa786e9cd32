/* How the chosen experts' scores become combine weights: one row for each normalization. */
#include "core/dense/math.h"
#include "core/moe/policy.h"

static void keep(const struct gate_policy *policy, const struct choice *choice, float *weights)
{
    for (size_t slot = 0; slot < policy->top_k; slot++)
        weights[slot] = choice->scores[choice->expert[slot]];
}

const struct gate_normalize normalize_none = {.name = "none", .weigh = keep};

static void share_sum(const struct gate_policy *policy, const struct choice *choice, float *weights)
{
    keep(policy, choice, weights);
    divide_by(sum_of(weights, policy->top_k), weights, policy->top_k);
}

const struct gate_normalize normalize_sum = {.name = "sum", .weigh = share_sum};

static void share_softmax(const struct gate_policy *policy, const struct choice *choice,
                          float *weights)
{
    for (size_t slot = 0; slot < policy->top_k; slot++)
        weights[slot] = choice->logits[choice->expert[slot]];
    softmax(weights, policy->top_k, weights, NULL);
}

const struct gate_normalize normalize_softmax = {
    .name = "softmax", .is_positive = true, .weigh = share_softmax};

/* ---- lp ----------------------------------------------------------------------------------- */

static int check_lp(struct gate_policy *policy, struct config_node *node, struct error *err)
{
    const double otherwise = 2;
    double p;
    if (config_real(node, "p", &otherwise, &p, err) != 0)
        return -1;
    if (p < 1)
        return config_error(node, "p", err, "expected a number of at least 1");
    policy->p = (float)p;
    return 0;
}

/* Scaled by the largest magnitude first, so that powers neither overflow nor vanish. */
static float lp_norm(const float *values, size_t count, float p)
{
    float max = 0, sum = 0;
    for (size_t i = 0; i < count; i++)
        max = fmaxf(max, fabsf(values[i]));
    for (size_t i = 0; i < count && max > 0; i++)
        sum += powf(fabsf(values[i]) / max, p);
    return max * powf(sum, 1.0f / p);
}

static void share_norm(const struct gate_policy *policy, const struct choice *choice,
                       float *weights)
{
    keep(policy, choice, weights);
    divide_by(lp_norm(weights, policy->top_k, policy->p), weights, policy->top_k);
}

const struct gate_normalize normalize_lp = {
    .name = "lp", .format = 2, .check = check_lp, .weigh = share_norm};

/* ---- the table ---------------------------------------------------------------------------- */

static const struct gate_normalize *const NORMALIZATIONS[] = {&normalize_none, &normalize_sum,
                                                              &normalize_softmax, &normalize_lp};

const struct gate_normalize *normalize_read(struct config_node *node, int format, struct error *err)
{
    enum { COUNT = sizeof NORMALIZATIONS / sizeof *NORMALIZATIONS };
    const char *names[COUNT + 1] = {NULL};
    int index;
    for (size_t i = 0; i < COUNT; i++)
        names[i] = NORMALIZATIONS[i]->name;
    if (config_choice(node, "normalize", names, 0, &index, err) != 0)
        return NULL;
    if (NORMALIZATIONS[index]->format <= format)
        return NORMALIZATIONS[index];
    config_error(node, "normalize", err, "'%s' needs \"format_version\": %d", names[index],
                 NORMALIZATIONS[index]->format);
    return NULL;
}

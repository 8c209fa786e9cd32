/* Reading a gate's policy: what does not go together is refused here, so that a choice of top_k
 * distinct experts always exists. */
#include "core/moe/policy.h"

#include "core/text.h"

/* "groups": {"count", "keep", "by"} */
static int read_groups(struct gate_policy *policy, struct config_node *node, struct error *err)
{
    static const char *const by[] = {"top2", "max", NULL};
    struct config_node own;
    int64_t count, keep;
    if (!config_has(node, "groups"))
        return 0;
    if (config_object(node, "groups", &own, err) != 0 ||
        config_integer(&own, "count", CONFIG_REQUIRED, within(1, MAX_GROUPS), &count, err) != 0 ||
        config_integer(&own, "keep", CONFIG_REQUIRED, within(1, count), &keep, err) != 0 ||
        config_choice(&own, "by", by, GROUP_TOP2, &policy->group_score, err) != 0)
        return -1;
    policy->groups = (size_t)count;
    policy->groups_kept = (size_t)keep;
    if (policy->experts % policy->groups != 0)
        return config_error(&own, "count", err, "%zu expert%s cannot make %zu equal groups",
                            policy->experts, text_s(policy->experts), policy->groups);
    const size_t selectable = policy->experts / policy->groups * policy->groups_kept;
    if (policy->top_k > selectable)
        return config_error(&own, "keep", err, "%zu expert%s in %zu group%s, fewer than top_k %zu",
                            selectable, text_s(selectable), policy->groups_kept,
                            text_s(policy->groups_kept), policy->top_k);
    return config_done(&own, err);
}

/* "factor" with "minimum" and "round", or "places". */
static int read_places(struct capacity *capacity, struct config_node *node, struct error *err)
{
    static const char *const rounds[] = {"down", "up", NULL};
    int64_t minimum, places;
    int up;
    if (config_has(node, "places")) {
        if (config_integer(node, "places", CONFIG_REQUIRED, within(1, INT32_MAX), &places, err) !=
            0)
            return -1;
        capacity->places = (double)places;
        return 0;
    }
    if (config_real(node, "factor", NULL, &capacity->factor, err) != 0 ||
        config_integer(node, "minimum", 1, within(1, INT32_MAX), &minimum, err) != 0 ||
        config_choice(node, "round", rounds, 0, &up, err) != 0)
        return -1;
    if (capacity->factor <= 0)
        return config_error(node, "factor", err, "expected a number above 0");
    capacity->minimum = (double)minimum;
    capacity->rounds_up = up == 1;
    return 0;
}

/* "capacity" */
static int read_capacity(struct gate_policy *policy, struct config_node *node, int format,
                         struct error *err)
{
    static const char *const orders[] = {"choice", "item", "score", "pair", NULL};
    static const char *const newer[] = {"places", "round", "rows", "order", "renormalize", NULL};
    struct capacity *capacity = &policy->capacity;
    struct config_node own;
    int64_t rows;
    if (!config_has(node, "capacity"))
        return 0;
    if (config_object(node, "capacity", &own, err) != 0 ||
        config_since(&own, 3, format, newer, err) != 0 || read_places(capacity, &own, err) != 0 ||
        config_integer(&own, "rows", 0, within(1, INT32_MAX), &rows, err) != 0 ||
        config_choice(&own, "order", orders, PLACE_CHOICES, &capacity->order, err) != 0 ||
        config_flag(&own, "renormalize", false, &capacity->renormalizes, err) != 0)
        return -1;
    capacity->limited = true;
    capacity->rows = (size_t)rows;
    if (capacity->renormalizes && policy->normalize != &normalize_sum)
        return config_error(&own, "renormalize", err, "goes with normalize \"sum\" only");
    return config_done(&own, err);
}

int policy_read(struct gate_policy *policy, struct config_node *node, int format, struct error *err)
{
    const double one = 1.0;
    const int64_t count = (int64_t)policy->experts;
    int64_t top_k;
    double scale;
    if (!(policy->score = score_read(node, format, err)) ||
        !(policy->normalize = normalize_read(node, format, err)) ||
        config_integer(node, "top_k", count, within(1, count), &top_k, err) != 0 ||
        config_real(node, "scale", &one, &scale, err) != 0)
        return -1;
    policy->top_k = (size_t)top_k;
    policy->scale = (float)scale;
    if (config_since(node, 2, format, KEYS("groups", "capacity"), err) != 0 ||
        read_groups(policy, node, err) != 0 || read_capacity(policy, node, format, err) != 0 ||
        (policy->score->check && policy->score->check(policy, node, err) != 0))
        return -1;
    return policy->normalize->check ? policy->normalize->check(policy, node, err) : 0;
}

size_t policy_group_experts(const struct gate_policy *policy)
{
    bool pairs = policy->groups && policy->experts / policy->groups > 1;
    return policy->group_score == GROUP_TOP2 && pairs ? 2 : 1;
}

bool policy_is_signed(const struct gate_policy *policy)
{
    return policy->scale < 0 || (policy->score->is_signed && !policy->normalize->is_positive);
}

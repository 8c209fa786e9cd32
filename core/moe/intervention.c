/* Building what rows want of their gates, and refusing what a gate cannot do exactly. */
#include "core/intervention.h"

#include <stdlib.h>

#include "core/memory.h"
#include "core/moe/policy.h"
#include "core/text.h"

struct moed_intervention *moed_intervention_new(const struct moed_model_info *info)
{
    struct moed_intervention *intervention =
        xcalloc(1, sizeof *intervention + info->gate_count * sizeof *intervention->gates);
    intervention->gate_count = info->gate_count;
    return intervention;
}

void moed_intervention_free(struct moed_intervention *intervention)
{
    for (size_t i = 0; intervention && i < intervention->gate_count; i++) {
        free(intervention->gates[i].excluded);
        free(intervention->gates[i].silenced);
    }
    free(intervention);
}

int32_t moed_gate_find_expert(const struct moed_gate_info *gate, int64_t index)
{
    if (!gate->expert_index)
        return index >= 0 && index < (int64_t)gate->experts ? (int32_t)index : -1;
    for (size_t i = 0; i < gate->experts; i++)
        if (gate->expert_index[i] == index)
            return (int32_t)i;
    return -1;
}

/* ---- asking ---- */

static size_t words_of(const struct moed_gate_info *gate)
{
    return (gate->experts + 63) / 64;
}

static void set_bit(uint64_t **experts, const struct moed_gate_info *gate, int32_t expert)
{
    if (!*experts)
        *experts = xcalloc(words_of(gate), sizeof **experts);
    (*experts)[expert / 64] |= UINT64_C(1) << expert % 64;
}

void moed_intervention_exclude(struct moed_intervention *intervention,
                               const struct moed_model_info *info, size_t gate, int32_t expert)
{
    set_bit(&intervention->gates[gate].excluded, &info->gates[gate], expert);
}

void moed_intervention_silence(struct moed_intervention *intervention,
                               const struct moed_model_info *info, size_t gate, int32_t expert)
{
    set_bit(&intervention->gates[gate].silenced, &info->gates[gate], expert);
}

static void add_experts(uint64_t **to, const uint64_t *from, const struct moed_gate_info *gate)
{
    for (size_t e = 0; from && e < gate->experts; e++)
        if (moed_override_has(from, e))
            set_bit(to, gate, (int32_t)e);
}

void moed_intervention_add(struct moed_intervention *intervention,
                           const struct moed_model_info *info,
                           const struct moed_intervention *other)
{
    for (size_t i = 0; i < info->gate_count; i++) {
        struct moed_gate_override *to = &intervention->gates[i];
        const struct moed_gate_override *from = &other->gates[i];
        add_experts(&to->excluded, from->excluded, &info->gates[i]);
        add_experts(&to->silenced, from->silenced, &info->gates[i]);
        if (from->top_k && (!to->top_k || from->top_k < to->top_k))
            to->top_k = from->top_k;
    }
}

/* ---- whether the gate can ---- */

static size_t count_left(const struct moed_gate_override *override, size_t first, size_t experts)
{
    size_t left = 0;
    for (size_t e = first; e < first + experts; e++)
        left += !moed_override_has(override->excluded, e);
    return left;
}

static int compare_sizes(const void *a, const void *b)
{
    const size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return left < right ? -1 : left > right;
}

/* A group is valued by its best experts, and whichever groups are kept must hold `top_k`. A group
 * of which nothing is left is never kept while there are others. */
static int check_groups(const struct moed_gate_info *gate,
                        const struct moed_gate_override *override, size_t top_k, struct error *err)
{
    size_t sizes[MAX_GROUPS], groups = 0, fewest = 0;
    const size_t size = gate->experts / gate->groups;
    for (size_t group = 0; group < gate->groups; group++) {
        const size_t left = count_left(override, group * size, size);
        if (left > 0 && left < gate->group_experts)
            return error_set(err, ERROR_INVALID,
                             "gate '%s': %zu expert of group %zu is left, and groups are valued by "
                             "their best %zu",
                             gate->name, left, group, gate->group_experts);
        if (left > 0)
            sizes[groups++] = left;
    }
    if (groups < gate->groups_kept)
        return error_set(err, ERROR_INVALID,
                         "gate '%s': %zu group%s of experts left, and it chooses from %zu",
                         gate->name, groups, text_s(groups), gate->groups_kept);
    qsort(sizes, groups, sizeof *sizes, compare_sizes);
    for (size_t i = 0; i < gate->groups_kept; i++)
        fewest += sizes[i];
    if (fewest < top_k)
        return error_set(err, ERROR_INVALID,
                         "gate '%s': its choice of groups may leave %zu expert%s, fewer than top_k "
                         "%zu; ask for a smaller \"top_k\"",
                         gate->name, fewest, text_s(fewest), top_k);
    return 0;
}

static int finish_gate(const struct moed_gate_info *gate, struct moed_gate_override *override,
                       struct error *err)
{
    const size_t left = count_left(override, 0, gate->experts);
    const bool shrinks = gate->top_k == gate->experts && left > 0 && left < gate->top_k;
    const size_t top_k = override->top_k ? override->top_k : shrinks ? left : gate->top_k;
    if (top_k > gate->top_k)
        return error_set(err, ERROR_INVALID, "gate '%s': top_k is %zu, expected 1 to %zu",
                         gate->name, top_k, gate->top_k);
    if (top_k > left)
        return error_set(err, ERROR_INVALID,
                         "gate '%s': %zu of its %zu experts are left, fewer than top_k %zu%s",
                         gate->name, left, gate->experts, top_k,
                         left > 0 ? "; ask for a smaller \"top_k\"" : "");
    if (gate->fixed_top_k && top_k != gate->top_k)
        return error_set(err, ERROR_INVALID,
                         "gate '%s': its weights are defined for top_k %zu, not for %zu",
                         gate->name, gate->top_k, top_k);
    if (gate->groups && override->excluded && check_groups(gate, override, top_k, err) != 0)
        return -1;
    override->top_k = top_k;
    return 0;
}

int moed_intervention_finish(struct moed_intervention *intervention,
                             const struct moed_model_info *info, struct error *err)
{
    for (size_t i = 0; i < info->gate_count; i++) {
        struct moed_gate_override *override = &intervention->gates[i];
        if ((override->top_k || override->excluded || override->silenced) &&
            finish_gate(&info->gates[i], override, err) != 0)
            return -1;
    }
    return 0;
}

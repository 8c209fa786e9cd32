/* Scopes, costs and plans: where parts of a model find their tensors, what they cost, and where
 * their scratch is. */
#include "core/layers/chain.h"
#include "support.h"

static struct config_node node = {.key = "", .index = CONFIG_NO_INDEX};

static struct scope enter(const struct scope *outer, const char *part)
{
    struct scope scope;
    struct error err = ERROR_INIT;
    ck_assert_int_eq(scope_enter(&scope, outer, &node, &err, "%s", part), 0);
    return scope;
}

START_TEST(names_grow_part_by_part)
{
    struct scope model = {.precision = {.bits = 8}}, moe = enter(&model, "moe"), experts, layer;
    struct error err = ERROR_INIT;
    ck_assert_int_eq(scope_enter(&experts, &moe, &node, &err, "experts.%d", 3), 0);
    layer = enter(&experts, "fc1");
    ck_assert_str_eq(layer.prefix, "moe.experts.3.fc1.");
    ck_assert_uint_eq(layer.precision.bits, 8);
    ck_assert_str_eq(scope_around(&layer).prefix, "moe.experts.3.");
    ck_assert_str_eq(moe.prefix, "moe.");
}
END_TEST

START_TEST(too_long_a_name_is_refused_wherever_it_grows)
{
    char part[MAX_TENSOR_NAME + 1];
    struct scope model = {0}, scope, whole;
    struct error err = ERROR_INIT;
    memset(part, 'n', sizeof part);
    part[MAX_TENSOR_NAME] = '\0';
    ck_assert_int_eq(scope_enter(&scope, &model, &node, &err, "%s", part), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "tensor names would be too long"));
    part[MAX_TENSOR_NAME - 2] = '\0'; /* with the dot and the NUL it just fits */
    whole = enter(&model, part);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(scope_enter(&scope, &whole, &node, &err, "n"), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "tensor names would be too long"));
}
END_TEST

START_TEST(weights_and_work_add_up_apart)
{
    const struct cost expert = {
        .parameters = 10, .weight_bytes = 40, .active_parameters = 10, .macs = 8};
    struct cost cost = {.parameters = 1, .weight_bytes = 4, .active_parameters = 1, .macs = 1};
    for (int i = 0; i < 3; i++)
        cost_add_weights(&cost, &expert);
    cost_add_work(&cost, &expert, 2);
    ck_assert_uint_eq(cost.parameters, 31);
    ck_assert_uint_eq(cost.weight_bytes, 124);
    ck_assert_uint_eq(cost.active_parameters, 21);
    ck_assert_uint_eq(cost.macs, 17);
}
END_TEST

START_TEST(released_places_are_used_again)
{
    const struct plan part = {.most = 5, .workspace = 9};
    struct plan plan = {0};
    float memory[64];
    size_t first = plan_floats(&plan, 3);
    size_t passing = plan_passing_part(&plan, &part, 2);
    size_t last = plan_floats(&plan, 4);
    ck_assert_uint_eq(first, 0);
    ck_assert_uint_eq(passing, 3);
    ck_assert_uint_eq(last, 3);
    ck_assert_uint_eq(plan.used, 7);
    ck_assert_uint_eq(plan.most, 13);
    ck_assert_uint_eq(plan.workspace, 9);
    const struct run run = {.arena = memory};
    ck_assert_ptr_eq(run_floats(&run, last, 2), memory + 6);
    const struct run inside = run_part(&run, passing, 2);
    ck_assert_ptr_eq(run_floats(&inside, 1, 2), memory + 8);
}
END_TEST

TEST_MAIN("scope", names_grow_part_by_part, too_long_a_name_is_refused_wherever_it_grows,
          weights_and_work_add_up_apart, released_places_are_used_again)

/* combine: the weighted sum of the experts' results, in a fixed order. */
#include "core/moe/combine.h"
#include "support.h"

/* Combines for a layer with a single gate. */
static void combine_alone(const struct dispatch *dispatch, float *weight, size_t elements,
                          const float *out, float *y)
{
    const struct routing routing = {
        .decisions = {.items = dispatch->items, .top_k = dispatch->slots, .weight = weight}};
    combine(&routing, 1, dispatch, elements, out, y);
}

START_TEST(results_are_weighted_and_added)
{
    /* item 0: 2 * (30, 40) + 3 * (1, 2); item 1: -1 * (5, 6) + 0.5 * (10, 20) */
    uint32_t position[] = {3, 0, 1, 2};
    float weight[] = {2, 3, -1, 0.5f}, y[4];
    memset(y, 0xff, sizeof y); /* no old value may remain */
    combine_alone(&(struct dispatch){.items = 2, .slots = 2, .position = position}, weight, 2,
                  FLOATS(1, 2, 5, 6, 10, 20, 30, 40), y);
    expect_close(y, FLOATS(63, 86, 0, 4), 4);
}
END_TEST

START_TEST(the_best_expert_comes_first)
{
    /* In f32, 1e8 + 1 - 1e8 is 0 and 1e8 - 1e8 + 1 is 1. */
    uint32_t position[] = {2, 0, 1};
    float weight[] = {1, 1, 1}, y;
    combine_alone(&(struct dispatch){.items = 1, .slots = 3, .position = position}, weight, 1,
                  FLOATS(1, -1e8f, 1e8f), &y);
    ck_assert(y == 0);
    memcpy(position, (const uint32_t[]){2, 1, 0}, sizeof position);
    combine_alone(&(struct dispatch){.items = 1, .slots = 3, .position = position}, weight, 1,
                  FLOATS(1, -1e8f, 1e8f), &y);
    ck_assert(y == 1);
}
END_TEST

START_TEST(one_expert_per_item_is_a_weighted_copy)
{
    uint32_t position[] = {1, 2, 0};
    float weight[] = {1, 10, 100}, y[3];
    combine_alone(&(struct dispatch){.items = 3, .slots = 1, .position = position}, weight, 1,
                  FLOATS(7, 8, 9), y);
    expect_close(y, FLOATS(8, 90, 700), 3);
}
END_TEST

START_TEST(what_was_dropped_adds_nothing)
{
    /* item 0 keeps its second choice, item 1 nothing */
    uint32_t position[] = {NOWHERE, 0, NOWHERE, NOWHERE};
    float weight[] = {0, 3, 0, 0}, y[4];
    memset(y, 0xff, sizeof y);
    combine_alone(&(struct dispatch){.items = 2, .slots = 2, .position = position}, weight, 2,
                  FLOATS(1, 2), y);
    expect_close(y, FLOATS(3, 6, 0, 0), 4);
}
END_TEST

START_TEST(gates_write_side_by_side)
{
    /* two gates of one choice each over two items: [items, gates, 1] */
    uint32_t position[] = {0, 2, 1, 2};
    float first[] = {1, 10}, second[] = {100, 1000}, y[4];
    const struct dispatch dispatch = {.items = 2, .slots = 2, .position = position};
    const struct routing routing[2] = {{.decisions = {.items = 2, .top_k = 1, .weight = first}},
                                       {.decisions = {.items = 2, .top_k = 1, .weight = second}}};
    combine(routing, 2, &dispatch, 1, FLOATS(1, 2, 3), y);
    expect_close(y, FLOATS(1, 300, 20, 3000), 4);
}
END_TEST

TEST_MAIN("combine", what_was_dropped_adds_nothing, gates_write_side_by_side,
          results_are_weighted_and_added, the_best_expert_comes_first,
          one_expert_per_item_is_a_weighted_copy)

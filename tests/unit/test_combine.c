/* The weighted sum of the experts' results, in a fixed order. */
#include "support.h"

#include "core/moe.h"

static struct routing routing_of(size_t items, size_t top_k, uint32_t *position, float *weight)
{
    return (struct routing){.items = items, .top_k = top_k, .position = position, .weight = weight};
}

START_TEST(results_are_weighted_and_added)
{
    /* item 0: 2 * (30, 40) + 3 * (1, 2); item 1: -1 * (5, 6) + 0.5 * (10, 20) */
    uint32_t position[] = {3, 0, 1, 2};
    float weight[] = {2, 3, -1, 0.5f}, y[4];
    const struct routing routing = routing_of(2, 2, position, weight);
    const struct run run = {0};
    memset(y, 0xff, sizeof y); /* nothing of what was there before may remain */
    combine(&run, &routing, 2, FLOATS(1, 2, 5, 6, 10, 20, 30, 40), y);
    expect_close(y, FLOATS(63, 86, 0, 4), 4);
}
END_TEST

START_TEST(the_best_expert_comes_first)
{
    /* In f32, 1e8 + 1 - 1e8 is 0 and 1e8 - 1e8 + 1 is 1. */
    uint32_t position[] = {2, 0, 1};
    float weight[] = {1, 1, 1}, y;
    const struct routing routing = routing_of(1, 3, position, weight);
    const struct run run = {0};
    combine(&run, &routing, 1, FLOATS(1, -1e8f, 1e8f), &y);
    ck_assert(y == 0);
    memcpy(position, (const uint32_t[]){2, 1, 0}, sizeof position);
    combine(&run, &routing, 1, FLOATS(1, -1e8f, 1e8f), &y);
    ck_assert(y == 1);
}
END_TEST

START_TEST(one_expert_per_item_is_a_weighted_copy)
{
    uint32_t position[] = {1, 2, 0};
    float weight[] = {1, 10, 100}, y[3];
    const struct routing routing = routing_of(3, 1, position, weight);
    const struct run run = {0};
    combine(&run, &routing, 1, FLOATS(7, 8, 9), y);
    expect_close(y, FLOATS(8, 90, 700), 3);
}
END_TEST

TEST_MAIN("combine", results_are_weighted_and_added, the_best_expert_comes_first,
          one_expert_per_item_is_a_weighted_copy)

/* The counting sort of (item, expert) pairs: a stable permutation, whatever was chosen. */
#include "core/moe/experts.h"
#include "support.h"

static struct dispatch pairs;
static uint64_t selected[MAX_EXPERTS]; /* items of each expert */

static void init(struct routing *routing, size_t items, size_t experts, size_t top_k)
{
    struct error err = ERROR_INIT;
    const struct moe_sizes sizes = {.experts = experts, .items_per_row = 1, .slots = top_k};
    ck_assert_int_eq(dispatch_init(&pairs, &sizes, items, false, &err), 0);
    const struct moed_gate_info info = {
        .name = "m", .experts = experts, .top_k = top_k, .items_per_row = 1};
    ck_assert_int_eq(routing_init(routing, &info, items, false, &err), 0);
    routing->decisions.items = items;
    memset(selected, 0, sizeof selected);
}

/* Of one span of rows, without overrides. */
static void sort_pairs(struct routing *gates, size_t gate_count)
{
    const struct moed_span span = {.rows = gates[0].decisions.items};
    const struct run run = {.spans = &span, .span_count = 1, .routing = gates};
    dispatch_pairs(&pairs, &run, 0, gate_count);
}

static void close_all(struct routing *routing)
{
    routing_close(routing);
    dispatch_close(&pairs);
}

static void choose(struct routing *routing, size_t item, size_t slot, size_t expert)
{
    routing->expert[item * routing->decisions.top_k + slot] = (int32_t)expert;
    selected[expert]++;
}

/* Distinct experts for every item: a window of a shuffled list. */
static void choose_at_random(struct routing *routing, uint32_t *state)
{
    size_t order[64];
    for (size_t e = 0; e < routing->decisions.experts; e++)
        order[e] = e;
    for (size_t item = 0; item < routing->decisions.items; item++)
        for (size_t slot = 0; slot < routing->decisions.top_k; slot++) {
            const size_t other = slot + next_random(state) % (routing->decisions.experts - slot);
            const size_t expert = order[other];
            order[other] = order[slot];
            order[slot] = expert;
            choose(routing, item, slot, expert);
        }
}

static void expect_sorted(const struct routing *routing)
{
    const size_t selections = routing->decisions.items * routing->decisions.top_k;
    unsigned char *taken = xcalloc(selections, 1);
    uint32_t next = 0;
    for (size_t e = 0; e < routing->decisions.experts; e++) {
        ck_assert_uint_eq(pairs.first[e], next);
        next += (uint32_t)selected[e];
        for (uint32_t at = pairs.first[e] + 1; at < next; at++)
            if (pairs.item[at - 1] >= pairs.item[at])
                ck_abort_msg("expert %zu gets item %u after item %u", e, pairs.item[at],
                             pairs.item[at - 1]);
    }
    ck_assert_uint_eq(pairs.first[routing->decisions.experts], selections);
    for (size_t pair = 0; pair < selections; pair++) {
        const uint32_t at = pairs.position[pair];
        const size_t expert = (size_t)routing->expert[pair];
        if (at < pairs.first[expert] || at >= pairs.first[expert + 1] || taken[at] ||
            pairs.item[at] != pair / routing->decisions.top_k)
            ck_abort_msg("pair %zu of expert %zu went to %u", pair, expert, at);
        taken[at] = 1;
    }
    free(taken);
}

START_TEST(pairs_are_sorted_by_expert_and_item)
{
    struct routing routing;
    init(&routing, 3, 4, 2);
    choose(&routing, 0, 0, 3);
    choose(&routing, 0, 1, 1);
    choose(&routing, 1, 0, 1);
    choose(&routing, 1, 1, 0);
    choose(&routing, 2, 0, 3);
    choose(&routing, 2, 1, 1);
    sort_pairs(&routing, 1);
    static const uint32_t first[] = {0, 1, 4, 4, 6}, item[] = {1, 0, 1, 2, 0, 2},
                          position[] = {4, 1, 2, 0, 5, 3};
    ck_assert_mem_eq(pairs.first, first, sizeof first);
    ck_assert_mem_eq(pairs.item, item, sizeof item);
    ck_assert_mem_eq(pairs.position, position, sizeof position);
    close_all(&routing);
}
END_TEST

START_TEST(any_choice_gives_a_stable_permutation)
{
    uint32_t state = 2026;
    for (int round = 0; round < 300; round++) {
        struct routing routing;
        const size_t experts = 1 + next_random(&state) % 64;
        const size_t top_k = 1 + next_random(&state) % experts;
        init(&routing, 1 + next_random(&state) % 50, experts, top_k);
        choose_at_random(&routing, &state);
        sort_pairs(&routing, 1);
        expect_sorted(&routing);
        close_all(&routing);
    }
}
END_TEST

START_TEST(all_items_to_one_expert)
{
    struct routing routing;
    for (size_t expert = 0; expert < 3; expert++) {
        init(&routing, 20, 3, 1);
        for (size_t item = 0; item < 20; item++)
            choose(&routing, item, 0, expert);
        sort_pairs(&routing, 1);
        expect_sorted(&routing);
        close_all(&routing);
    }
}
END_TEST

START_TEST(one_item_and_the_most_experts)
{
    struct routing routing;
    init(&routing, 1, MAX_EXPERTS, MAX_EXPERTS);
    for (size_t slot = 0; slot < MAX_EXPERTS; slot++)
        choose(&routing, 0, slot, MAX_EXPERTS - 1 - slot);
    sort_pairs(&routing, 1);
    expect_sorted(&routing);
    close_all(&routing);
}
END_TEST

START_TEST(a_smaller_batch_sorts_in_the_same_memory)
{
    struct routing routing;
    uint32_t state = 7;
    init(&routing, 30, 8, 2);
    for (size_t items = 30; items > 0; items--) {
        routing.decisions.items = items;
        memset(selected, 0, sizeof selected);
        choose_at_random(&routing, &state);
        sort_pairs(&routing, 1);
        expect_sorted(&routing);
    }
    close_all(&routing);
}
END_TEST

START_TEST(gates_share_pairs)
{
    /* gate a: item 0 -> 1, item 1 -> 0; gate b: item 0 -> 1 and 2, item 1 -> 2 and nothing */
    struct routing gates[2];
    struct error err = ERROR_INIT;
    const struct moed_gate_info info = {.experts = 3, .top_k = 2};
    init(&gates[0], 2, 3, 1);
    dispatch_close(&pairs);
    ck_assert_int_eq(routing_init(&gates[1], &info, 2, false, &err), 0);
    const struct moe_sizes sizes = {.experts = 3, .items_per_row = 1, .slots = 3};
    ck_assert_int_eq(dispatch_init(&pairs, &sizes, 2, false, &err), 0);
    choose(&gates[0], 0, 0, 1);
    choose(&gates[0], 1, 0, 0);
    gates[1].decisions.items = 2;
    memcpy(gates[1].expert, ((int32_t[]){1, 2, 2, -1}), 4 * sizeof(int32_t));
    sort_pairs(gates, 2);
    static const uint32_t first[] = {0, 1, 2, 4}, item[] = {1, 0, 0, 1};
    static const uint32_t position[] = {1, 1, 2, 0, 3, NOWHERE};
    ck_assert_mem_eq(pairs.first, first, sizeof first);
    ck_assert_mem_eq(pairs.item, item, sizeof item);
    ck_assert_mem_eq(pairs.position, position, sizeof position);
    routing_close(&gates[1]);
    close_all(&gates[0]);
}
END_TEST

START_TEST(too_many_items_are_an_error)
{
    struct error err = ERROR_INIT;
    const struct moe_sizes sizes = {.experts = 4, .items_per_row = 1, .slots = 4};
    ck_assert_int_eq(dispatch_init(&pairs, &sizes, SIZE_MAX / 64, false, &err), -1);
    ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
    dispatch_close(&pairs);
}
END_TEST

TEST_MAIN("dispatch", gates_share_pairs, pairs_are_sorted_by_expert_and_item,
          any_choice_gives_a_stable_permutation, all_items_to_one_expert,
          one_item_and_the_most_experts, a_smaller_batch_sorts_in_the_same_memory,
          too_many_items_are_an_error)

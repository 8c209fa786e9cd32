/* Counts against a reference that keeps every decision and counts it again from the start. */
#include "core/gate_counts.h"
#include "support.h"

enum { MOST_ITEMS = 60, MOST_EXPERTS = 12 };

/* Numbers of sixteenths, so that sums are exact in any order. */
static struct decided {
    struct moed_routing routing;
    int32_t expert[MOST_ITEMS * MOST_EXPERTS], choice[MOST_ITEMS * MOST_EXPERTS];
    float weight[MOST_ITEMS * MOST_EXPERTS], probability[MOST_ITEMS * MOST_EXPERTS];
    float entropy[MOST_ITEMS], margin[MOST_ITEMS];
} decided;

static float sixteenths(uint32_t *state)
{
    return (float)(next_random(state) % 64) / 16 - 1;
}

static void decide_pair(size_t pair, size_t experts, uint32_t *state)
{
    /* Distinct within an item: windows of the circle of experts. */
    const size_t k = decided.routing.top_k, item = pair / k;
    const size_t expert = (item * 5 + pair % k) % experts;
    const bool dropped = next_random(state) % 5 == 0;
    decided.choice[pair] = (int32_t)expert;
    decided.expert[pair] = dropped ? -1 : (int32_t)expert + 100;
    decided.weight[pair] = dropped ? 0 : sixteenths(state);
}

static void decide(size_t items, size_t experts, size_t top_k, uint32_t *state)
{
    decided.routing = (struct moed_routing){items,
                                            experts,
                                            top_k,
                                            decided.expert,
                                            decided.choice,
                                            decided.weight,
                                            decided.probability,
                                            decided.entropy,
                                            decided.margin};
    for (size_t pair = 0; pair < items * top_k; pair++)
        decide_pair(pair, experts, state);
    for (size_t i = 0; i < items * experts; i++)
        decided.probability[i] = sixteenths(state);
    for (size_t item = 0; item < items; item++) {
        decided.entropy[item] = sixteenths(state);
        decided.margin[item] = sixteenths(state);
    }
}

/* What items [first, end) add up to for one expert, looked up pair by pair. */
static struct moed_expert_counts expected_of(size_t expert, size_t first, size_t end)
{
    const size_t k = decided.routing.top_k;
    struct moed_expert_counts expected = {0};
    for (size_t pair = first * k; pair < end * k; pair++) {
        if (decided.choice[pair] != (int32_t)expert)
            continue;
        expected.top1 += pair % k == 0;
        expected.selected += decided.expert[pair] >= 0;
        expected.weight += (double)decided.weight[pair];
    }
    for (size_t item = first; item < end; item++)
        expected.probability +=
            (double)decided.probability[item * decided.routing.experts + expert];
    return expected;
}

static void expect_range(const struct moed_gate_counts *counts, size_t first, size_t end)
{
    double entropy = 0, margin = 0;
    uint64_t dropped = 0;
    for (size_t item = first; item < end; item++) {
        entropy += (double)decided.entropy[item];
        margin += (double)decided.margin[item];
    }
    for (size_t pair = first * decided.routing.top_k; pair < end * decided.routing.top_k; pair++)
        dropped += decided.expert[pair] < 0;
    ck_assert_uint_eq(counts->items, end - first);
    ck_assert_uint_eq(counts->dropped, dropped);
    ck_assert_double_eq(counts->entropy, entropy);
    ck_assert_double_eq(counts->margin, margin);
    for (size_t e = 0; e < decided.routing.experts; e++) {
        const struct moed_expert_counts expected = expected_of(e, first, end);
        ck_assert_uint_eq(counts->expert[e].selected, expected.selected);
        ck_assert_uint_eq(counts->expert[e].top1, expected.top1);
        ck_assert_double_eq(counts->expert[e].weight, expected.weight);
        ck_assert_double_eq(counts->expert[e].probability, expected.probability);
    }
}

/* [0, a), [a, b) and [b, items) counted apart, together, added up and taken away again. */
static void check_ranges(size_t a, size_t b)
{
    const size_t experts = decided.routing.experts, items = decided.routing.items;
    struct moed_gate_counts *head = moed_gate_counts_new(experts),
                            *middle = moed_gate_counts_new(experts),
                            *all = moed_gate_counts_new(experts);
    moed_gate_counts_count(head, &decided.routing, 0, a);
    expect_range(head, 0, a);
    moed_gate_counts_count(middle, &decided.routing, a, b);
    expect_range(middle, a, b);
    moed_gate_counts_count(all, &decided.routing, 0, b);
    moed_gate_counts_count(all, &decided.routing, b, items);
    expect_range(all, 0, items);
    moed_gate_counts_add(middle, head);
    expect_range(middle, 0, b);
    moed_gate_counts_subtract(all, middle);
    expect_range(all, b, items);
    moed_gate_counts_add(all, middle);
    expect_range(all, 0, items);
    moed_gate_counts_reset(all);
    expect_range(all, 0, 0);
    moed_gate_counts_free(head);
    moed_gate_counts_free(middle);
    moed_gate_counts_free(all);
}

START_TEST(any_range_counts_as_the_reference)
{
    uint32_t state = 1234;
    for (int round = 0; round < 200; round++) {
        const size_t items = 1 + next_random(&state) % MOST_ITEMS;
        const size_t experts = 1 + next_random(&state) % MOST_EXPERTS;
        decide(items, experts, 1 + next_random(&state) % experts, &state);
        const size_t b = next_random(&state) % (items + 1);
        check_ranges(next_random(&state) % (b + 1), b);
    }
}
END_TEST

START_TEST(without_distributions_only_choices_count)
{
    uint32_t state = 5;
    decide(9, 4, 2, &state);
    decided.routing.probability = decided.routing.entropy = decided.routing.margin = NULL;
    struct moed_gate_counts *counts = moed_gate_counts_new(4);
    moed_gate_counts_count(counts, &decided.routing, 0, 9);
    ck_assert_uint_eq(counts->items, 9);
    ck_assert_double_eq(counts->entropy, 0);
    for (size_t e = 0; e < 4; e++) {
        ck_assert_uint_eq(counts->expert[e].selected, expected_of(e, 0, 9).selected);
        ck_assert_double_eq(counts->expert[e].probability, 0);
    }
    moed_gate_counts_free(counts);
}
END_TEST

/* Replicas may be read at different times: integers come back exactly even across their wrap. */
START_TEST(integers_are_exact_modulo_2_64)
{
    struct moed_gate_counts *big = moed_gate_counts_new(1), *one = moed_gate_counts_new(1);
    big->items = UINT64_MAX;
    big->expert[0].selected = UINT64_MAX - 1;
    one->items = one->expert[0].selected = 3;
    moed_gate_counts_add(big, one);
    ck_assert_uint_eq(big->items, 2);
    moed_gate_counts_subtract(big, one);
    ck_assert_uint_eq(big->items, UINT64_MAX);
    ck_assert_uint_eq(big->expert[0].selected, UINT64_MAX - 1);
    moed_gate_counts_free(big);
    moed_gate_counts_free(one);
}
END_TEST

START_TEST(freeing_nothing_is_fine)
{
    moed_gate_counts_free(NULL);
}
END_TEST

TEST_MAIN("gate counts", any_range_counts_as_the_reference,
          without_distributions_only_choices_count, integers_are_exact_modulo_2_64,
          freeing_nothing_is_fine)

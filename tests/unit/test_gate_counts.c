/* Gate counts, compared with a reference that keeps every decision and counts from scratch. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "core/gate_counts.h"
#include "support.h"

enum { MOST_ITEMS = 60, MOST_EXPERTS = 12 };

/* All numbers are sixteenths, so that sums are exact in any order. */
static struct decided {
    struct moed_routing routing;
    int32_t expert[MOST_ITEMS * MOST_EXPERTS], choice[MOST_ITEMS * MOST_EXPERTS];
    float weight[MOST_ITEMS * MOST_EXPERTS], probability[MOST_ITEMS * MOST_EXPERTS];
    float entropy[MOST_ITEMS], margin[MOST_ITEMS];
    uint64_t seconds[100 + MOST_EXPERTS];
} decided;

static float sixteenths(uint32_t *state)
{
    return (float)(next_random(state) % 64) / 16 - 1;
}

static void decide_pair(size_t pair, size_t experts, uint32_t *state)
{
    /* Distinct within an item: consecutive experts, modulo their number. */
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
                                            decided.margin,
                                            decided.seconds};
    for (size_t pair = 0; pair < items * top_k; pair++)
        decide_pair(pair, experts, state);
    for (size_t i = 0; i < items * experts; i++)
        decided.probability[i] = sixteenths(state);
    for (size_t i = 0; i < experts; i++)
        decided.seconds[100 + i] = next_random(state);
    for (size_t item = 0; item < items; item++) {
        decided.entropy[item] = sixteenths(state) + 1.0f / 64; /* between two parts */
        decided.margin[item] = sixteenths(state);
    }
}

/* Of its item's absolute weights. */
static double part_of_pair(size_t pair)
{
    const size_t k = decided.routing.top_k, first = pair / k * k;
    double mass = 0;
    for (size_t i = first; i < first + k; i++)
        mass += fabs((double)decided.weight[i]);
    return mass > 0 ? fabs((double)decided.weight[pair]) / mass : 0;
}

/* Expects the counts of items [first, end) for one expert, found pair by pair. */
static void expect_expert(const struct moed_gate_counts *counts, size_t expert, size_t first,
                          size_t end)
{
    const size_t k = decided.routing.top_k;
    uint64_t selected = 0, top1 = 0, dropped = 0;
    double weight = 0, part = 0, probability = 0;
    for (size_t pair = first * k; pair < end * k; pair++) {
        if (decided.choice[pair] != (int32_t)expert)
            continue;
        top1 += pair % k == 0;
        selected += decided.expert[pair] >= 0;
        dropped += decided.expert[pair] < 0;
        weight += (double)decided.weight[pair];
        part += part_of_pair(pair);
    }
    for (size_t item = first; item < end; item++)
        probability += (double)decided.probability[item * decided.routing.experts + expert];
    ck_assert_uint_eq(counts->expert[expert].selected, selected);
    ck_assert_uint_eq(counts->expert[expert].top1, top1);
    ck_assert_uint_eq(counts->expert[expert].dropped, dropped);
    ck_assert(counts->expert[expert].seconds == selected * decided.seconds[100 + expert]);
    ck_assert_double_eq(moed_sum_value(counts->expert[expert].weight), weight);
    ck_assert_double_eq_tol(moed_sum_value(counts->expert[expert].part), part,
                            (double)(end - first + 1) * 0x1p-32);
    ck_assert_double_eq(moed_sum_value(counts->expert[expert].probability), probability);
}

/* Which part of [0, 1] or of [0, log2 experts] the value lies in, looked for from the front. */
static size_t part_of(double value, double whole)
{
    size_t part = 0;
    while (part + 1 < MOED_HISTOGRAM_PARTS && value >= whole * (double)(part + 1) / 20 - 1e-9)
        part++;
    return part;
}

static void expect_histograms(const struct moed_gate_counts *counts, size_t first, size_t end)
{
    uint64_t margins[MOED_HISTOGRAM_PARTS] = {0}, entropies[MOED_HISTOGRAM_PARTS] = {0};
    const double most = log2((double)counts->experts);
    for (size_t item = first; item < end; item++) {
        margins[part_of((double)decided.margin[item], 1)]++;
        entropies[counts->experts > 1 ? part_of((double)decided.entropy[item], most) : 0]++;
    }
    ck_assert_mem_eq(counts->margins, margins, sizeof margins);
    ck_assert_mem_eq(counts->entropies, entropies, sizeof entropies);
}

static void expect_range(const struct moed_gate_counts *counts, size_t first, size_t end)
{
    double entropy = 0, margin = 0;
    for (size_t item = first; item < end; item++) {
        entropy += (double)decided.entropy[item];
        margin += (double)decided.margin[item];
    }
    ck_assert_uint_eq(counts->items, end - first);
    ck_assert_double_eq(moed_sum_value(counts->entropy), entropy);
    ck_assert_double_eq(moed_sum_value(counts->margin), margin);
    for (size_t e = 0; e < decided.routing.experts; e++)
        expect_expert(counts, e, first, end);
    expect_histograms(counts, first, end);
}

/* Counts [0, a), [a, b) and [b, items) separately and together, adds them up and subtracts them
 * again. */
static void check_ranges(size_t a, size_t b)
{
    const size_t experts = decided.routing.experts, items = decided.routing.items;
    struct moed_gate_counts *head = moed_gate_counts_new(experts),
                            *middle = moed_gate_counts_new(experts),
                            *all = moed_gate_counts_new(experts);
    moed_gate_counts_count(head, &decided.routing, 0, a, 1);
    expect_range(head, 0, a);
    moed_gate_counts_count(middle, &decided.routing, a, b, 2);
    expect_range(middle, a, b);
    moed_gate_counts_count(all, &decided.routing, 0, b, 1);
    moed_gate_counts_count(all, &decided.routing, b, items, 2);
    expect_range(all, 0, items);
    moed_gate_counts_add(middle, head);
    expect_range(middle, 0, b);
    moed_gate_counts_subtract(all, middle);
    expect_range(all, b, items);
    moed_gate_counts_add(all, middle);
    expect_range(all, 0, items);
    moed_gate_counts_subtract(all, all);
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
    moed_gate_counts_count(counts, &decided.routing, 0, 9, 1);
    ck_assert_uint_eq(counts->items, 9);
    ck_assert(counts->entropy == 0);
    memset(decided.probability, 0, sizeof decided.probability);
    for (size_t e = 0; e < 4; e++)
        expect_expert(counts, e, 0, 9);
    moed_gate_counts_free(counts);
}
END_TEST

static void fill_fractions(float *values, size_t count, uint32_t *state)
{
    for (size_t i = 0; i < count; i++)
        values[i] = ldexpf((float)next_random(state) / 0x1p24f, -(int)(next_random(state) % 40));
}

/* Fractions whose sum in doubles would depend on their order. */
START_TEST(sums_do_not_depend_on_batches)
{
    uint32_t state = 99;
    decide(MOST_ITEMS, MOST_EXPERTS, 3, &state);
    fill_fractions(decided.probability, MOST_ITEMS * MOST_EXPERTS, &state);
    fill_fractions(decided.weight, MOST_ITEMS * 3, &state);
    fill_fractions(decided.entropy, MOST_ITEMS, &state);
    fill_fractions(decided.margin, MOST_ITEMS, &state);
    struct moed_gate_counts *whole = moed_gate_counts_new(MOST_EXPERTS),
                            *parts = moed_gate_counts_new(MOST_EXPERTS);
    moed_gate_counts_count(whole, &decided.routing, 0, MOST_ITEMS, 7);
    for (size_t end = MOST_ITEMS, first; end > 0; end = first) {
        first = end - 1 - next_random(&state) % end;
        struct moed_gate_counts *part = moed_gate_counts_new(MOST_EXPERTS);
        moed_gate_counts_count(part, &decided.routing, first, end, 7);
        moed_gate_counts_add(parts, part);
        moed_gate_counts_free(part);
    }
    ck_assert_mem_eq(whole, parts,
                     sizeof *whole + MOST_EXPERTS * sizeof(struct moed_expert_counts));
    double exact = 0;
    for (size_t item = 0; item < MOST_ITEMS; item++)
        exact += (double)decided.entropy[item];
    ck_assert_double_eq_tol(moed_sum_value(whole->entropy), exact, MOST_ITEMS * 0x1p-33);
    moed_gate_counts_free(whole);
    moed_gate_counts_free(parts);
}
END_TEST

/* With dropped pairs, weights without bounds, and times that do not ascend. */
static void check_records(size_t k)
{
    uint32_t state = 77;
    decide(MOST_ITEMS, MOST_EXPERTS, k, &state);
    fill_fractions(decided.probability, MOST_ITEMS * MOST_EXPERTS, &state);
    fill_fractions(decided.entropy, MOST_ITEMS, &state);
    decided.weight[5] = INFINITY;
    decided.choice[5 * k - 1] = decided.expert[5 * k - 1] = -1; /* fewer were asked for */
    const size_t bytes = moed_gate_record_bytes(MOST_EXPERTS, k), pitch = bytes + sizeof(uint64_t);
    char *records = malloc(MOST_ITEMS * pitch);
    struct moed_gate_counts *one = moed_gate_counts_new(MOST_EXPERTS),
                            *other = moed_gate_counts_new(MOST_EXPERTS);
    for (size_t item = 0; item < MOST_ITEMS; item++) {
        uint64_t *time = (uint64_t *)(records + item * pitch + bytes);
        *time = 1 + next_random(&state) % 100;
        moed_gate_record_write(records + item * pitch, &decided.routing, item);
        ck_assert_mem_eq(moed_gate_record_choice(records + item * pitch, k),
                         decided.choice + item * k, k * sizeof *decided.choice);
        moed_gate_counts_count(one, &decided.routing, item, item + 1, *time);
    }
    memset(&decided, 0, sizeof decided);
    for (size_t first = 0; first < MOST_ITEMS; first += 7)
        moed_gate_counts_count_records(
            other, k,
            &(struct moed_gate_records){records + first * pitch,
                                        (const uint64_t *)(records + first * pitch + bytes), pitch,
                                        MOST_ITEMS - first < 7 ? MOST_ITEMS - first : 7});
    ck_assert_uint_eq(one->overflowed, 1);
    ck_assert_mem_eq(one, other, sizeof *one + MOST_EXPERTS * sizeof(struct moed_expert_counts));
    free(records);
    moed_gate_counts_free(one);
    moed_gate_counts_free(other);
}

START_TEST(records_count_as_their_items)
{
    check_records(2);
    check_records(3);
}
END_TEST

START_TEST(no_weight_poisons_a_sum)
{
    ck_assert_double_eq(moed_sum_value(moed_sum_of(0.375)), 0.375);
    ck_assert_double_eq(moed_sum_value(moed_sum_of(-0x1p-32)), -0x1p-32);
    ck_assert_double_eq(moed_sum_value(moed_sum_of(1e30)), 0x1p19);
    ck_assert_double_eq(moed_sum_value(moed_sum_of(-INFINITY)), -0x1p19);
    ck_assert_double_eq(moed_sum_value(moed_sum_of(NAN)), -0x1p19);
    /* A million years at a million rows a second are far from the end of a sum. */
    ck_assert_double_gt(moed_sum_value(((__int128)1 << 126)), 0x1p19 * 1e6 * 3.2e13);
}
END_TEST

/* An item of such a weight is counted, and its weights are in no sum: not those that are small. */
START_TEST(an_overflowed_item_adds_no_weight)
{
    static const float BEYOND[] = {FLT_MAX, -FLT_MAX, 0x1.000002p19f, INFINITY, NAN};
    uint32_t state = 3;
    decide(4, 3, 2, &state);
    memset(decided.weight, 0, sizeof decided.weight);
    for (size_t pair = 0; pair < 8; pair++)
        decided.expert[pair] = decided.choice[pair] + 100;
    decided.weight[0] = 0.25f; /* of item 0; item 3 is just within */
    decided.weight[6] = 0x1p19f;
    for (size_t i = 0; i < sizeof BEYOND / sizeof *BEYOND; i++) {
        struct moed_gate_counts *counts = moed_gate_counts_new(3), *sum = moed_gate_counts_new(3);
        double part = 0, weight = 0, selected = 0;
        decided.weight[2] = 0.5f;
        decided.weight[3] = BEYOND[i];
        moed_gate_counts_count(counts, &decided.routing, 0, 4, 7);
        moed_gate_counts_add(sum, counts);
        moed_gate_counts_add(sum, counts);
        moed_gate_counts_subtract(sum, counts);
        ck_assert_uint_eq(sum->items, 4);
        ck_assert_uint_eq(sum->overflowed, 1);
        for (size_t e = 0; e < 3; e++) {
            selected += (double)sum->expert[e].selected;
            weight += moed_sum_value(sum->expert[e].weight);
            part += moed_sum_value(sum->expert[e].part);
        }
        ck_assert_double_eq(selected, 8);
        ck_assert_double_eq(weight, 0x1p19 + 0.25);
        ck_assert_double_eq(part, 2);
        moed_gate_counts_free(counts);
        moed_gate_counts_free(sum);
    }
}
END_TEST

/* Nor does a weight just within drown the others in shares: its item has 1 part to give, as all. */
START_TEST(no_item_has_more_parts_than_another)
{
    uint32_t state = 3;
    decide(4, 2, 2, &state);
    for (size_t pair = 0; pair < 8; pair++) {
        decided.expert[pair] = decided.choice[pair] = (int32_t)(pair % 2);
        decided.weight[pair] = pair % 2 ? -0.75f : 0.25f;
    }
    decided.weight[2] = 0; /* of item 1 */
    decided.weight[3] = 0x1p-149f;
    decided.weight[4] = -0x1p19f;
    decided.weight[6] = decided.weight[7] = 0;
    struct moed_gate_counts *counts = moed_gate_counts_new(2);
    moed_gate_counts_count(counts, &decided.routing, 0, 4, 7);
    ck_assert_uint_eq(counts->overflowed, 0);
    ck_assert_double_eq(moed_sum_value(counts->expert[0].weight), 0.25 - 0x1p19);
    ck_assert_double_eq_tol(moed_sum_value(counts->expert[0].part), 0.25 + 1, 2e-6);
    ck_assert_double_eq_tol(moed_sum_value(counts->expert[1].part), 0.75 + 1, 2e-6);
    moed_gate_counts_free(counts);
}
END_TEST

START_TEST(experts_remember_when_they_served_last)
{
    uint32_t state = 1;
    decide(1, 2, 1, &state);
    decided.choice[0] = decided.expert[0] = 1;
    struct moed_gate_counts *one = moed_gate_counts_new(2), *other = moed_gate_counts_new(2);
    moed_gate_counts_count(one, &decided.routing, 0, 1, 50);
    moed_gate_counts_count(other, &decided.routing, 0, 1, 40);
    moed_gate_counts_add(other, one);
    ck_assert_uint_eq(other->expert[0].last, 0);
    ck_assert_uint_eq(other->expert[1].last, 50);
    moed_gate_counts_subtract(other, one);
    ck_assert_uint_eq(other->expert[1].last, 50);
    moed_gate_counts_free(one);
    moed_gate_counts_free(other);
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

START_TEST(fewer_choices_than_slots)
{
    uint32_t state = 4;
    decide(3, 5, 3, &state);
    struct moed_gate_counts *counts = moed_gate_counts_new(5);
    for (size_t pair = 0; pair < 9; pair++) {
        decided.choice[pair] = pair % 3 ? -1 : 4;
        decided.expert[pair] = decided.choice[pair];
    }
    decided.choice[6] = -1; /* padding */
    moed_gate_counts_count(counts, &decided.routing, 0, 3, 1);
    ck_assert_uint_eq(counts->items, 2);
    ck_assert_uint_eq(counts->expert[4].selected, 2);
    ck_assert_uint_eq(counts->expert[4].dropped, 0);
    moed_gate_counts_count_intervened(counts, &decided.routing, 0, 3);
    ck_assert_uint_eq(counts->intervened, 2);
    ck_assert_uint_eq(counts->items, 2);
    struct moed_gate_counts *sum = moed_gate_counts_new(5);
    moed_gate_counts_add(sum, counts);
    moed_gate_counts_add(sum, counts);
    moed_gate_counts_subtract(sum, counts);
    ck_assert_uint_eq(sum->intervened, 2);
    moed_gate_counts_free(sum);
    moed_gate_counts_free(counts);
}
END_TEST

TEST_MAIN("gate counts", fewer_choices_than_slots, any_range_counts_as_the_reference,
          without_distributions_only_choices_count, sums_do_not_depend_on_batches,
          records_count_as_their_items, no_weight_poisons_a_sum, an_overflowed_item_adds_no_weight,
          no_item_has_more_parts_than_another, experts_remember_when_they_served_last,
          integers_are_exact_modulo_2_64, freeing_nothing_is_fine)

/* routing_detail: tables that are there when they are needed, and what is counted in them. */
#include <math.h>
#include <stdlib.h>

#include "proto/routing_detail.h"
#include "test_proto_support.h"

static void check_near(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) < 1e-9, "%.17g, expected %.17g", value, expected);
}

#define COUNTS(...)                                                                                \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define SUMS(...)                                                                                  \
    (const double[])                                                                               \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static const struct routing_verdict RIGHT = {.correct = true, .confidence = 0.75, .log_loss = 0.25};
static const struct routing_verdict WRONG = {.confidence = 0.5, .log_loss = 1.5};

/* Both, twice. */
static void check_quality(const struct routing_detail *sum)
{
    const struct quality_figures figures = routing_quality_figures(&sum->quality[0 * 4 + 1]);
    ck_assert_uint_eq(figures.labelled, 4);
    check_near(figures.log_loss, (0.25 + 1.5) / 2);
    check_near(figures.ece, (2 * 0.25 + 2 * 0.5) / 4);
    ck_assert_uint_eq(routing_quality_figures(&sum->quality[0 * 4 + 2]).labelled, 0);
}

START_TEST(details_are_counted_item_by_item)
{
    static const int32_t choice[] = {2, 0, 0, 2, 1, 2};
    struct routing_detail detail, sum;
    routing_detail_init(&detail, 3, 2, 4, 1);
    routing_detail_init(&sum, 3, 2, 4, 1);
    ck_assert_ptr_null(detail.ranks); /* nothing is allocated for gates without traffic */
    routing_detail_count(&detail, choice, 2, 1);
    routing_detail_count(&detail, choice + 4, 1, 1); /* of the same batch */
    routing_detail_count(&detail, choice, 1, 2);
    ck_assert_ptr_null(detail.predicted);
    routing_detail_predict(&detail, 2, 3);
    ck_assert_ptr_null(detail.quality);
    routing_detail_label(&detail, 0, 1, &RIGHT);
    routing_detail_label(&detail, 0, 1, &WRONG);
    routing_detail_label(&detail, 0, 4, &RIGHT); /* no such class */
    routing_detail_add(&sum, &detail);
    routing_detail_add(&sum, &detail);
    ck_assert_mem_eq(sum.ranks, (COUNTS(2, 4, 2, 0, 4, 4)), 6 * sizeof(uint64_t));
    ck_assert_mem_eq(sum.pairs, (COUNTS(0, 0, 6, 0, 0, 2, 0, 0, 0)), 9 * sizeof(uint64_t));
    ck_assert_uint_eq(sum.predicted[2 * 4 + 3], 2);
    ck_assert_uint_eq(sum.truth[0 * 4 + 1], 4);
    ck_assert_uint_eq(sum.correct[0 * 4 + 1], 2);
    check_quality(&sum);
    check_near(routing_lift(&sum, 0, 2), 6 * 8 / (6.0 * 8)); /* 0 is chosen by 6 of 8, 2 by all */
    check_near(routing_lift(&sum, 1, 2), 2 * 8 / (2.0 * 8));
    check_near(routing_lift(&sum, 0, 1), 0);
    ck_assert_uint_eq(sum.batches, 4);
    ck_assert_uint_eq(sum.batch_items, 8);
    ck_assert_uint_eq(sum.batch_experts, 2 * (3 + 2));
    ck_assert_mem_eq(sum.distinct, (COUNTS(0, 2, 2)), 3 * sizeof(uint64_t));
    routing_detail_reset(&sum);
    ck_assert_uint_eq(sum.batches + sum.ranks[0] + sum.pairs[2], 0);
    ck_assert_uint_eq(routing_quality_figures(&sum.quality[0 * 4 + 1]).labelled, 0);
    routing_detail_close(&detail);
    routing_detail_close(&sum);
}
END_TEST

/* What would grow beyond its bound, or says nothing, is left out, and counting goes on. */
START_TEST(details_are_bounded)
{
    struct routing_detail large, all, sum;
    int32_t choice[2] = {0, 511};
    routing_detail_init(&large, 512, 2, 1000, 1);
    routing_detail_init(&all, 2, 2, 0, 1);
    routing_detail_init(&sum, 512, 2, 1000, 1);
    routing_detail_count(&large, choice, 1, 1);
    routing_detail_predict(&large, 511, 999);
    routing_detail_label(&large, 511, 999, &RIGHT);
    routing_detail_count(&all, (const int32_t[]){0, 1}, 1, 1);
    ck_assert_ptr_null(large.pairs);
    ck_assert_ptr_null(large.predicted);
    ck_assert_ptr_null(large.quality);
    ck_assert_ptr_null(all.pairs);
    ck_assert_uint_eq(large.ranks[511 * 2 + 1], 1);
    free(large.ranks); /* as if there had been no memory for it */
    large.ranks = NULL;
    large.left_out |= 1;
    routing_detail_fill(&sum);
    ck_assert_ptr_nonnull(sum.ranks);
    routing_detail_add(&sum, &large);
    ck_assert_ptr_null(sum.ranks); /* part of it would be a wrong count */
    check_near(routing_lift(&sum, 0, 511), 0);
    routing_detail_close(&sum);
    routing_detail_close(&large);
    routing_detail_close(&all);
}
END_TEST

/* More cells than quality may have, whose labels and right answers are counted. */
START_TEST(quality_of_too_many_classes_is_left_out)
{
    struct routing_detail many, sum;
    routing_detail_init(&many, 8, 2, DETAIL_MAX_QUALITIES / 8 + 1, 1);
    routing_detail_init(&sum, 8, 2, DETAIL_MAX_QUALITIES / 8 + 1, 1);
    routing_detail_label(&many, 1, 2, &RIGHT);
    routing_detail_add(&sum, &many);
    ck_assert_uint_eq(sum.truth[DETAIL_MAX_QUALITIES / 8 + 1 + 2], 1);
    ck_assert_uint_eq(sum.correct[DETAIL_MAX_QUALITIES / 8 + 1 + 2], 1);
    ck_assert_ptr_null(sum.quality);
    routing_detail_close(&many);
    routing_detail_close(&sum);
}
END_TEST

/* Hundreds of gates have no hundreds of the largest tables. */
START_TEST(details_of_all_gates_are_bounded)
{
    struct routing_detail few, many;
    const int32_t choice[2] = {0, 255};
    routing_detail_init(&few, 256, 2, 6, 128);
    routing_detail_init(&many, 256, 2, 6, 131);
    routing_detail_count(&few, choice, 1, 1);
    routing_detail_count(&many, choice, 1, 1);
    ck_assert_uint_eq(few.pairs[255], 1);
    ck_assert_ptr_null(many.pairs); /* of the busiest 253, once these are known */
    ck_assert_uint_eq(many.busiest.side, 253);
    ck_assert_uint_eq(many.ranks[0], 1);
    routing_detail_label(&few, 1, 2, &RIGHT);
    routing_detail_label(&many, 1, 2, &RIGHT);
    ck_assert_ptr_nonnull(few.quality);
    ck_assert_ptr_null(many.quality);
    routing_detail_close(&few);
    routing_detail_close(&many);
}
END_TEST

/* Positions behind the end of a short row have no choice. */
START_TEST(padding_has_no_details)
{
    static const int32_t choice[] = {-1, -1, 1, 0, -1, -1};
    struct routing_detail detail;
    routing_detail_init(&detail, 3, 2, 4, 1);
    routing_detail_count(&detail, choice, 3, 1);
    routing_detail_predict(&detail, (size_t)choice[0], 3);
    routing_detail_label(&detail, (size_t)choice[0], 3, &RIGHT);
    routing_detail_label(&detail, 0, (size_t)-1, &WRONG); /* not known */
    ck_assert_ptr_null(detail.quality);
    ck_assert_mem_eq(detail.ranks, (COUNTS(0, 1, 1, 0, 0, 0)), 6 * sizeof(uint64_t));
    ck_assert_mem_eq(detail.pairs, (COUNTS(0, 1, 0, 0, 0, 0, 0, 0, 0)), 9 * sizeof(uint64_t));
    ck_assert_uint_eq(detail.batch_items, 1);
    ck_assert_uint_eq(detail.batch_experts, 2);
    routing_detail_close(&detail);
}
END_TEST

START_TEST(mutual_information_by_hand)
{
    check_near(routing_mutual_information(COUNTS(5, 0, 0, 5), 2, 2), 1);
    check_near(routing_mutual_information(COUNTS(5, 5, 5, 5), 2, 2), 0);
    check_near(routing_mutual_information(COUNTS(0, 0, 0, 0), 2, 2), 0);
    check_near(routing_mutual_information(COUNTS(3, 1, 0, 0, 2, 2), 2, 3), /* by numpy */
               0.6556390622295665);
}
END_TEST

START_TEST(dispatch_entropy_by_hand)
{
    check_near(routing_dispatch_entropy(COUNTS(5, 0, 0, 5), 2, 2), 0);
    check_near(routing_dispatch_entropy(COUNTS(5, 5, 0, 0), 2, 2), 1);
    check_near(routing_dispatch_entropy(COUNTS(5, 5, 4, 0), 2, 2), 10 / 14.0);
    check_near(routing_dispatch_entropy(COUNTS(0, 0, 0, 0), 2, 2), 0);
}
END_TEST

/* Pairs that are three times as frequent as independent choices, and never: i with i + 3. */
START_TEST(lift_tells_pairs_from_chance)
{
    static const int32_t choice[] = {0, 3, 1, 4, 2, 5, 3, 0, 4, 1, 5, 2};
    struct routing_detail sum;
    routing_detail_init(&sum, 6, 2, 0, 1);
    routing_detail_count(&sum, choice, 6, 1);
    check_near(routing_lift(&sum, 0, 3), 2 * 6 / (2.0 * 2));
    check_near(routing_lift(&sum, 0, 1), 0);
    routing_detail_close(&sum);
}
END_TEST

/* 300 experts: those whose pairs are counted are all but the first 44. */
static void choose_last(struct routing_detail *detail)
{
    uint64_t selected[300];
    uint16_t busiest[BUSIEST_MAX];
    for (size_t i = 0; i < 300; i++)
        selected[i] = i / 2;
    routing_busiest_find(selected, 300, BUSIEST_MAX, busiest);
    ck_assert_uint_eq(busiest[0], 44);
    ck_assert_uint_eq(busiest[255], 299);
    routing_detail_choose(detail, busiest, 7);
}

static void check_busiest(const struct routing_detail *sum)
{
    const size_t side = BUSIEST_MAX;
    ck_assert_uint_eq(sum->busiest.since, 7);
    ck_assert_uint_eq(sum->busiest.items, 6);
    ck_assert_uint_eq(sum->busiest.outside, 2 * (3 + 2));
    ck_assert_uint_eq(sum->pairs[0 * side + 255], 4);
    ck_assert_uint_eq(sum->pairs[1 * side + 255], 0);
    ck_assert_uint_eq(routing_detail_paired(sum, 255), 299);
    check_near(routing_lift(sum, 0, 255), 4 * 6 / (4.0 * 4));
    check_near(routing_lift(sum, 0, 1), 0);
}

/* Where a table of all pairs would be too large. */
START_TEST(pairs_of_the_busiest_are_counted)
{
    /* none outside, two of three pairs, all */
    static const int32_t choice[] = {299, 44, -1, 44, 43, 299, 45, 0, 1};
    struct routing_detail detail, sum;
    routing_detail_init(&detail, 300, 3, 0, 1);
    routing_detail_init(&sum, 300, 3, 0, 1);
    ck_assert(routing_detail_has_busiest(&detail) && routing_detail_wants_busiest(&detail));
    routing_detail_count(&detail, choice, 3, 1);
    routing_detail_add(&sum, &detail);
    ck_assert_ptr_null(sum.pairs);
    choose_last(&detail);
    ck_assert(!routing_detail_wants_busiest(&detail));
    routing_detail_count(&detail, choice, 3, 2);
    routing_detail_add(&sum, &detail);
    routing_detail_add(&sum, &detail);
    check_busiest(&sum);
    routing_detail_reset(&detail); /* they are chosen anew */
    ck_assert(routing_detail_wants_busiest(&detail) && !detail.pairs);
    routing_detail_count(&detail, choice, 3, 3);
    routing_detail_close(&sum);
    routing_detail_close(&detail);
}
END_TEST

/* Of several with as many selections the lower ones. */
START_TEST(the_busiest_are_found)
{
    uint16_t busiest[3];
    routing_busiest_find(COUNTS(5, 7, 5, 0, 9, 5), 6, 3, busiest);
    ck_assert_mem_eq(busiest, ((const uint16_t[]){0, 1, 4}), sizeof busiest);
    ck_assert_uint_eq(routing_busiest_side(4096, 1, DETAIL_ALL_CELLS), 0);
    ck_assert_uint_eq(routing_busiest_side(8, 8, DETAIL_ALL_CELLS), 0);
    ck_assert_uint_eq(routing_busiest_side(256, 2, DETAIL_ALL_CELLS), 256);
    ck_assert_uint_eq(routing_busiest_side(257, 2, DETAIL_ALL_CELLS), 256);
    ck_assert_uint_eq(routing_busiest_side(257, 2, 99), 9);
    ck_assert_uint_eq(routing_busiest_side(257, 2, 3), 0);
}
END_TEST

RUN_TESTS("proto/routing_detail", details_are_counted_item_by_item, details_are_bounded,
          quality_of_too_many_classes_is_left_out, details_of_all_gates_are_bounded,
          padding_has_no_details, mutual_information_by_hand, dispatch_entropy_by_hand,
          lift_tells_pairs_from_chance, pairs_of_the_busiest_are_counted, the_busiest_are_found)

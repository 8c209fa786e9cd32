/* The counters of one model: what is added is what is read. */
#include "core/gate_counts.h"
#include "server/stats.h"
#include "support.h"

static const struct moed_gate_info gates[] = {
    {.name = "first", .experts = 2, .top_k = 1, .items_per_row = 1},
    {.name = "second", .experts = 3, .top_k = 2, .items_per_row = 1}};
static const struct moed_model_info info = {.gate_count = 2, .gates = gates};

START_TEST(reasons_have_words)
{
    ck_assert_str_eq(reject_word(REJECT_INVALID), "invalid");
    ck_assert_str_eq(reject_word(REJECT_QUEUE_FULL), "queue_full");
    ck_assert_str_eq(reject_word(REJECT_DEADLINE), "deadline");
    ck_assert_str_eq(reject_word(REJECT_DISCONNECTED), "disconnected");
}
END_TEST

START_TEST(requests_count_by_protocol_and_status)
{
    struct request_counts counts = {0};
    char protocol[] = "oip"; /* the text counts, not where it lies */
    request_counts_add(&counts, "oip", 200, 1);
    request_counts_add(&counts, "v1", 200, 1);
    request_counts_add(&counts, protocol, 200, 1);
    request_counts_add(&counts, "oip", 400, 1);
    ck_assert_uint_eq(counts.count, 3);
    ck_assert_uint_eq(counts.items[0].count, 2);
    ck_assert_str_eq(counts.items[1].protocol, "v1");
    ck_assert_uint_eq(counts.items[1].count, 1);
    ck_assert_int_eq(counts.items[2].status, 400);
    request_counts_close(&counts);
}
END_TEST

START_TEST(counters_begin_at_zero)
{
    struct stats stats;
    stats_init(&stats, &info);
    const struct routing_layer layer = stats_routing(&stats, &info, 1);
    ck_assert_str_eq(layer.name, "second");
    ck_assert_uint_eq(layer.top_k, 2);
    ck_assert_uint_eq(layer.counts->experts, 3);
    ck_assert_uint_eq(layer.counts->items, 0);
    for (size_t i = 0; i < 3; i++) {
        const struct moed_expert_counts *expert = &layer.counts->expert[i];
        ck_assert_uint_eq(expert->selected + expert->top1, 0);
        ck_assert_double_eq(expert->weight + expert->probability, 0);
    }
    ck_assert_uint_eq(stats.rows, 0);
    stats_close(&stats);
}
END_TEST

START_TEST(routing_adds_up)
{
    struct stats stats;
    stats_init(&stats, &info);
    static const int32_t expert[] = {1, 0, 2, 0};
    static const float weight[] = {1, 0.25f, 0.5f, 0.25f};
    const struct moed_routing one = {.items = 2,
                                     .experts = 3,
                                     .top_k = 2,
                                     .expert = expert,
                                     .choice = expert,
                                     .weight = weight,
                                     .probability = FLOATS(0.25f, 0.75f, 0, 0.5f, 0, 0.5f),
                                     .entropy = FLOATS(0.5f, 1),
                                     .margin = FLOATS(0.5f, 0)};
    const struct moed_routing none = {.experts = 2, .top_k = 1};
    const struct moed_routing *const batch[] = {&none, &one};
    stats_add_batch(&stats, 2, 0.1, batch);
    stats_add_batch(&stats, 2, 0.1, batch);
    const struct moed_gate_counts *counts = stats_routing(&stats, &info, 1).counts;
    ck_assert_uint_eq(counts->items, 4);
    ck_assert_uint_eq(counts->expert[0].selected, 4);
    ck_assert_uint_eq(counts->expert[2].selected, 2);
    ck_assert_uint_eq(counts->expert[1].top1, 2);
    ck_assert_double_eq(counts->expert[1].weight, 2);
    ck_assert_double_eq(counts->expert[0].probability, 1.5);
    ck_assert_double_eq(counts->entropy, 3);
    ck_assert_double_eq(counts->margin, 1);
    ck_assert_uint_eq(stats_routing(&stats, &info, 0).counts->items, 0);
    stats_close(&stats);
}
END_TEST

START_TEST(loops_add_up)
{
    struct stats one, other, sum;
    stats_init(&one, &info);
    stats_init(&other, &info);
    stats_init(&sum, &info);
    stats_add_request(&one, "oip", 200, 0.1);
    stats_add_request(&other, "oip", 200, 0.2);
    stats_add_request(&other, "v1", 400, 0.1);
    stats_add_rejection(&one, REJECT_DEADLINE);
    stats_add_rejection(&other, REJECT_DEADLINE);
    stats_add_wait(&other, 0.5);
    one.rows = 3;
    other.rows = 4;
    one.routing[1]->expert[2].selected = 5;
    other.routing[1]->expert[2].selected = 6;
    one.routing[1]->dropped = 1;
    other.routing[1]->dropped = 1;
    stats_add(&sum, &one);
    stats_add(&sum, &other);
    ck_assert_uint_eq(sum.requests.count, 2);
    ck_assert_uint_eq(sum.requests.items[0].count, 2);
    ck_assert_uint_eq(sum.rejected[REJECT_DEADLINE], 2);
    ck_assert_uint_eq(sum.rows, 7);
    ck_assert_uint_eq(sum.routing[1]->expert[2].selected, 11);
    ck_assert_uint_eq(stats_routing(&sum, &info, 1).counts->dropped, 2);
    ck_assert_double_eq_tol(sum.request_seconds.sum, 0.4, 1e-12);
    ck_assert_double_eq(sum.queue_seconds.sum, 0.5);
    stats_close(&one);
    stats_close(&other);
    stats_close(&sum);
}
END_TEST

static uint64_t total(const struct histogram *histogram)
{
    uint64_t sum = 0;
    for (size_t i = 0; i <= histogram->bound_count; i++)
        sum += histogram->counts[i];
    return sum;
}

START_TEST(histograms_reach_from_microseconds_to_timeouts)
{
    struct stats stats;
    stats_init(&stats, &info);
    struct histogram *const seconds[] = {&stats.request_seconds, &stats.queue_seconds,
                                         &stats.compute_seconds};
    for (size_t i = 0; i < 3; i++) {
        histogram_observe(seconds[i], 1e-6);
        histogram_observe(seconds[i], 9.9);
        histogram_observe(seconds[i], 60);
        ck_assert_uint_eq(seconds[i]->counts[0], 1);
        ck_assert_uint_eq(seconds[i]->counts[seconds[i]->bound_count - 1], 1);
        ck_assert_uint_eq(seconds[i]->counts[seconds[i]->bound_count], 1);
        ck_assert_uint_eq(total(seconds[i]), 3);
    }
    histogram_observe(&stats.batch_rows, 1);
    histogram_observe(&stats.batch_rows, 64);
    ck_assert_uint_eq(stats.batch_rows.counts[0], 1);
    ck_assert_uint_eq(stats.batch_rows.counts[6], 1);
    stats_close(&stats);
}
END_TEST

START_TEST(bounds_ascend)
{
    struct stats stats;
    stats_init(&stats, &info);
    const struct histogram *const histograms[] = {&stats.request_seconds, &stats.batch_rows};
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 1; j < histograms[i]->bound_count; j++)
            ck_assert_double_gt(histograms[i]->bounds[j], histograms[i]->bounds[j - 1]);
    stats_close(&stats);
}
END_TEST

TEST_MAIN("stats", loops_add_up, reasons_have_words, requests_count_by_protocol_and_status,
          counters_begin_at_zero, routing_adds_up, histograms_reach_from_microseconds_to_timeouts,
          bounds_ascend)

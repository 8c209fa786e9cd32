/* The counters of one model: reading gives the sum of what was added. */
#include "core/gate_counts.h"
#include "server/statistics/stats.h"
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
    char protocol[] = "oip"; /* compared by text, not by address */
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
    stats_init(&stats, &info, 1);
    const struct moed_gate_counts *counts = stats.routing[0]->gates[1];
    ck_assert_uint_eq(counts->experts, 3);
    ck_assert_uint_eq(counts->items, 0);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(counts->expert[i].selected + counts->expert[i].top1, 0);
        ck_assert(counts->expert[i].weight + counts->expert[i].probability == 0);
    }
    ck_assert_uint_eq(stats.rows, 0);
    stats_close(&stats);
}
END_TEST

START_TEST(routing_adds_up)
{
    struct stats stats;
    stats_init(&stats, &info, 1);
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
    const struct tally_batch counted = {.rows = 2, .routing = batch, .at = 1};
    stats_add_batch(&stats, 2, 0.1);
    stats_count(&stats, 0, &counted, 0, 2);
    stats_add_batch(&stats, 2, 0.1);
    stats_count(&stats, 0, &counted, 0, 1);
    stats_count(&stats, 0, &counted, 1, 2);
    const struct moed_gate_counts *counts = stats.routing[0]->gates[1];
    ck_assert_uint_eq(stats.rows, 4);
    ck_assert_uint_eq(stats.routing[0]->rows, 4);
    ck_assert_uint_eq(counts->items, 4);
    ck_assert_uint_eq(counts->expert[0].selected, 4);
    ck_assert_uint_eq(counts->expert[2].selected, 2);
    ck_assert_uint_eq(counts->expert[1].top1, 2);
    ck_assert_double_eq(moed_sum_value(counts->expert[1].weight), 2);
    ck_assert_double_eq(moed_sum_value(counts->expert[0].probability), 1.5);
    ck_assert_double_eq(moed_sum_value(counts->entropy), 3);
    ck_assert_double_eq(moed_sum_value(counts->margin), 1);
    ck_assert_uint_eq(stats.routing[0]->gates[0]->items, 0);
    stats_close(&stats);
}
END_TEST

START_TEST(loops_add_up)
{
    struct stats one, other, sum;
    stats_init(&one, &info, 2);
    stats_init(&other, &info, 2);
    stats_init(&sum, &info, 1);
    stats_add_request(&one, "oip", 200, 0.1);
    stats_add_request(&other, "oip", 200, 0.2);
    stats_add_request(&other, "v1", 400, 0.1);
    stats_add_rejection(&one, REJECT_DEADLINE);
    stats_add_rejection(&other, REJECT_DEADLINE);
    stats_add_wait(&other, 0.5);
    one.rows = 3;
    other.rows = 4;
    one.routing[0]->gates[1]->expert[2].selected = 5;
    other.routing[0]->gates[1]->expert[2].selected = 6;
    one.routing[0]->gates[1]->expert[0].dropped = 1;
    other.routing[0]->gates[1]->expert[0].dropped = 1;
    stats_add(&sum, &one);
    stats_add(&sum, &other);
    ck_assert_uint_eq(sum.requests.count, 3 * 7); /* those that exist from the start */
    ck_assert_uint_eq(sum.requests.items[0].count, 2);
    ck_assert_uint_eq(sum.rejected[REJECT_DEADLINE], 2);
    ck_assert_uint_eq(sum.rows, 7);
    ck_assert_uint_eq(sum.routing[0]->gates[1]->expert[2].selected, 11);
    ck_assert_uint_eq(sum.routing[0]->gates[1]->expert[0].dropped, 2);
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
    stats_init(&stats, &info, 1);
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
    stats_init(&stats, &info, 1);
    const struct histogram *const histograms[] = {&stats.request_seconds, &stats.batch_rows};
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 1; j < histograms[i]->bound_count; j++)
            ck_assert_double_gt(histograms[i]->bounds[j], histograms[i]->bounds[j - 1]);
    stats_close(&stats);
}
END_TEST

/* ---- windows ---- */

static const uint64_t SECOND = 1000000000;

/* One row, which both gates give to their expert `expert`. */
static void serve_row(struct stats *shard, size_t tag, int32_t expert, uint64_t now)
{
    const int32_t chosen[] = {expert, 2};
    const struct moed_routing first = {.items = 1,
                                       .experts = 2,
                                       .top_k = 1,
                                       .expert = chosen,
                                       .choice = chosen,
                                       .weight = FLOATS(1)},
                              second = {.items = 1,
                                        .experts = 3,
                                        .top_k = 2,
                                        .expert = chosen,
                                        .choice = chosen,
                                        .weight = FLOATS(0.5f, 0.5f)};
    const struct moed_routing *const routing[] = {&first, &second};
    stats_count(shard, tag, &(struct tally_batch){.rows = 1, .routing = routing, .at = now}, 0, 1);
}

static uint64_t rows_in(struct model_stats *stats, enum window window, uint64_t now)
{
    struct stats_window of;
    stats_window_init(&of, stats, window, STATS_ALL_TAGS, true, now);
    const uint64_t rows = of.tally->rows;
    ck_assert_uint_eq(of.tally->gates[0]->items, rows);
    ck_assert_uint_eq(of.tally->gates[1]->expert[2].selected, rows);
    stats_window_close(&of);
    return rows;
}

/* A row a second over two loops, for three hours and with pauses, against a list of all of them. */
START_TEST(windows_slide)
{
    enum { SECONDS = 3 * 3600 };
    static bool served[SECONDS];
    const uint64_t lengths[] = {60, 300, 3600};
    struct model_stats *stats = model_stats_new(&info, 0, 2, 0, 0);
    uint32_t state = 3;
    for (uint64_t second = 0; second < SECONDS; second++) {
        if (second % 5 == 0)
            model_stats_tick(stats, second * SECOND);
        const bool pause = second % 2000 > 1200;
        served[second] = !pause && next_random(&state) % 3 > 0;
        if (served[second])
            serve_row(&stats->loop[second % 2], second % 3 % 2, second % 7 == 0, second * SECOND);
        for (int window = 0; window < WINDOW_COUNT && second % 101 == 0; window++) {
            const uint64_t step = lengths[window] / 12, begin = second / step * step;
            uint64_t rows = 0;
            for (uint64_t s = begin > lengths[window] ? begin - lengths[window] : 0; s <= second;
                 s++)
                rows += served[s];
            const uint64_t got = rows_in(stats, (enum window)window, second * SECOND);
            ck_assert_msg(got == rows, "%s at %lu: %lu rows, expected %lu",
                          window_name((enum window)window), second, got, rows);
        }
    }
    model_stats_release(stats);
}
END_TEST

START_TEST(a_window_says_what_it_spans)
{
    struct model_stats *stats = model_stats_new(&info, 0, 1, 0, 1000 * SECOND);
    struct stats_window of;
    serve_row(&stats->loop[0], 0, 0, 1001 * SECOND);
    stats_window_init(&of, stats, WINDOW_1M, STATS_ALL_TAGS, true, 1007 * SECOND);
    ck_assert_double_eq(of.seconds, 7); /* since the load */
    ck_assert_uint_eq(of.tally->rows, 1);
    ck_assert_uint_eq(of.before->rows, 0);
    stats_window_close(&of);
    for (uint64_t second = 1010; second <= 1100; second += 5)
        model_stats_tick(stats, second * SECOND);
    serve_row(&stats->loop[0], 0, 0, 1101 * SECOND);
    stats_window_init(&of, stats, WINDOW_1M, STATS_ALL_TAGS, true, 1102 * SECOND);
    ck_assert_double_eq(of.seconds, 62);
    ck_assert_uint_eq(of.tally->rows, 1);
    ck_assert_uint_eq(of.before->rows, 1);
    ck_assert_uint_eq(of.recent->rows, 2);
    ck_assert_uint_eq(of.earlier->rows, 0);
    stats_window_close(&of);
    stats_window_init(&of, stats, WINDOW_ALL, STATS_ALL_TAGS, true, 1102 * SECOND);
    ck_assert_double_eq(of.seconds, 102);
    ck_assert_uint_eq(of.tally->rows, 2);
    ck_assert_uint_eq(of.before->rows, 0);
    stats_window_close(&of);
    model_stats_release(stats);
}
END_TEST

/* Expert 1 of the first gate serves half an hour, then no more. */
START_TEST(earlier_and_recent_do_not_overlap)
{
    struct model_stats *stats = model_stats_new(&info, 0, 1, 0, 0);
    struct stats_window of;
    for (uint64_t second = 1; second < 2400; second++) {
        if (second % 5 == 0)
            model_stats_tick(stats, second * SECOND);
        serve_row(&stats->loop[0], 1, second < 1800 && second % 2, second * SECOND);
    }
    stats_window_init(&of, stats, WINDOW_5M, STATS_ALL_TAGS, true, 2399 * SECOND);
    ck_assert_uint_eq(of.recent->rows, 2399 - 2075 + 1);
    ck_assert_uint_eq(of.earlier->rows, 2399 - of.recent->rows);
    ck_assert_uint_eq(of.earlier->gates[0]->expert[1].selected, 900);
    ck_assert_uint_eq(of.recent->gates[0]->expert[1].selected, 0);
    ck_assert_uint_eq(of.tally->gates[0]->expert[1].last, 1799 * SECOND);
    stats_window_close(&of);
    model_stats_release(stats);
}
END_TEST

/* What proto/PROTOCOL.md says that an expert takes: for each loop and tag, for a tag's windows, and
 * more of both once labels have come. */
START_TEST(an_expert_takes_what_is_documented)
{
    const size_t marks = WINDOW_COUNT * HISTORY_MARKS;
    ck_assert_uint_eq(sizeof(struct moed_expert_counts), 96);
    ck_assert_uint_eq(sizeof(struct routing_quality), 336);
    ck_assert_uint_le(marks * sizeof(struct moed_expert_counts), 8 << 10);
    ck_assert_uint_le(marks * sizeof(struct routing_quality), 26 << 10);
}
END_TEST

START_TEST(tags_count_apart)
{
    struct model_stats *stats = model_stats_new(&info, 0, 2, 2, 0);
    ck_assert_uint_eq(tags_end(&stats->tags), 4);
    ck_assert_int_eq(tags_find(&stats->tags, "a"), -1);
    ck_assert_uint_eq(tags_index(&stats->tags, "a"), TAG_FIRST);
    ck_assert_uint_eq(tags_index(&stats->tags, "b"), TAG_FIRST + 1);
    ck_assert_uint_eq(tags_index(&stats->tags, "a"), TAG_FIRST);
    for (int i = 0; i < 1000; i++) { /* grow nothing */
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        ck_assert_uint_eq(tags_index(&stats->tags, name), TAG_FIRST + 2);
        ck_assert_int_eq(tags_find(&stats->tags, name), -1);
    }
    ck_assert_uint_eq(tags_index(&stats->tags, "other"), TAG_FIRST + 2);
    ck_assert_str_eq(tags_name(&stats->tags, TAG_FIRST + 1), "b");
    ck_assert_str_eq(tags_name(&stats->tags, TAG_FIRST + 2), "other");
    serve_row(&stats->loop[0], TAG_NONE, 0, 1);
    serve_row(&stats->loop[0], TAG_FIRST, 1, 1);
    serve_row(&stats->loop[1], TAG_FIRST, 1, 1);
    struct stats_window of;
    stats_window_init(&of, stats, WINDOW_1M, TAG_FIRST, true, 2);
    ck_assert_uint_eq(of.tally->rows, 2);
    ck_assert_uint_eq(of.tally->gates[0]->expert[1].selected, 2);
    stats_window_close(&of);
    stats_window_init(&of, stats, WINDOW_1M, TAG_FIRST + 1, true, 2);
    ck_assert_uint_eq(of.tally->rows, 0);
    stats_window_close(&of);
    ck_assert_uint_eq(rows_in(stats, WINDOW_ALL, 2), 3);
    ck_assert_uint_eq(model_stats_rows(stats, TAG_FIRST, false), 2);
    struct stats sum;
    stats_snapshot(stats, &info, &sum);
    ck_assert_uint_eq(sum.routing[0]->rows, 3);
    stats_close(&sum);
    model_stats_release(stats);
}
END_TEST

/* Windows and details begin anew; what rate() reads goes on. */
/* A model of sequences counts more than one of rows. */
START_TEST(only_alike_models_go_on_with_counters)
{
    struct moed_model_info other = info;
    struct model_stats *stats = model_stats_new(&info, 0, 1, 1, SECOND);
    ck_assert(model_stats_fit(stats, &other, 0));
    ck_assert(!model_stats_fit(stats, &other, 2));
    other.sequence = true;
    ck_assert(!model_stats_fit(stats, &other, 0));
    other.sequence = false;
    other.gate_count = 1;
    ck_assert(!model_stats_fit(stats, &other, 0));
    model_stats_release(stats);
}
END_TEST

START_TEST(a_reset_lets_counters_be)
{
    struct model_stats *stats = model_stats_new(&info, 0, 2, 1, 0);
    struct stats_window of;
    struct routing_detail detail;
    serve_row(&stats->loop[0], TAG_FIRST, 1, SECOND);
    serve_row(&stats->loop[1], TAG_NONE, 1, SECOND);
    model_stats_tick(stats, 30 * SECOND);
    model_stats_reset(stats, 40 * SECOND);
    for (int window = 0; window <= WINDOW_ALL; window++)
        ck_assert_uint_eq(rows_in(stats, (enum window)window, 41 * SECOND), 0);
    stats_add_batch(&stats->loop[0], 1, 0.1);
    serve_row(&stats->loop[0], TAG_FIRST, 0, 45 * SECOND);
    stats_window_init(&of, stats, WINDOW_ALL, STATS_ALL_TAGS, true, 50 * SECOND);
    ck_assert_double_eq(of.seconds, 10);
    ck_assert_uint_eq(of.tally->rows, 1);
    ck_assert_uint_eq(of.tally->gates[0]->expert[0].selected, 1);
    ck_assert_uint_eq(of.tally->gates[0]->expert[1].selected, 0);
    stats_window_close(&of);
    routing_detail_init(&detail, 3, 2, 0, 1);
    model_stats_detail(stats, 1, &detail);
    ck_assert_uint_eq(detail.batch_items, 1);
    ck_assert_uint_eq(detail.batches, 1);
    ck_assert_uint_eq(detail.ranks[2 * 2 + 1], 1);
    routing_detail_close(&detail);
    ck_assert_uint_eq(
        model_stats_rows(stats, TAG_FIRST, false) + model_stats_rows(stats, TAG_NONE, false), 3);
    model_stats_release(stats);
}
END_TEST

/* However many tags its rows have. */
START_TEST(a_batch_is_counted_once)
{
    struct model_stats *stats = model_stats_new(&info, 0, 1, 2, 0);
    struct routing_detail detail;
    for (int batch = 0; batch < 2; batch++) {
        stats_add_batch(&stats->loop[0], 3, 0.1);
        serve_row(&stats->loop[0], TAG_FIRST, 0, SECOND);
        serve_row(&stats->loop[0], TAG_NONE, 1, SECOND);
        serve_row(&stats->loop[0], TAG_FIRST, 0, SECOND);
    }
    stats_add_batch(&stats->loop[0], 1, 0.1); /* whose rows are not counted */
    routing_detail_init(&detail, 3, 2, 0, 1);
    model_stats_detail(stats, 1, &detail);
    ck_assert_uint_eq(detail.batches, 2);
    ck_assert_uint_eq(detail.batch_items, 6);
    ck_assert_uint_eq(detail.batch_experts, 2 * 3);
    routing_detail_close(&detail);
    model_stats_release(stats);
}
END_TEST

START_TEST(windows_have_names)
{
    for (int window = 0; window <= WINDOW_ALL; window++)
        ck_assert_int_eq(window_find(window_name((enum window)window)), window);
    ck_assert_int_eq(window_find("2m"), -1);
    ck_assert_int_eq(window_find(""), -1);
}
END_TEST

TEST_MAIN("stats", windows_slide, a_window_says_what_it_spans, earlier_and_recent_do_not_overlap,
          an_expert_takes_what_is_documented, tags_count_apart, a_batch_is_counted_once,
          only_alike_models_go_on_with_counters, a_reset_lets_counters_be, windows_have_names,
          loops_add_up, reasons_have_words, requests_count_by_protocol_and_status,
          counters_begin_at_zero, routing_adds_up, histograms_reach_from_microseconds_to_timeouts,
          bounds_ascend)

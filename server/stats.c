/* Counts of one served model, under one mutex. */
#include "server/stats.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* 50 us to 10 s: a small model answers in the first buckets, a queue timeout falls in the last. */
static const double SECONDS[] = {5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
                                 5e-2, 0.1,  0.25,   0.5,  1,    2.5,    5,    10};
static const double ROWS[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

const char *reject_word(enum reject_reason reason)
{
    static const char *const words[] = {
#define REJECT_WORD(name, word) [REJECT_##name] = word,
        REJECT_REASONS(REJECT_WORD)
#undef REJECT_WORD
    };
    return words[reason];
}

void request_counts_add(struct request_counts *counts, const char *protocol, int status,
                        uint64_t count)
{
    for (size_t i = 0; i < counts->count; i++) {
        struct request_count *item = &counts->items[i];
        if (item->status == status && strcmp(item->protocol, protocol) == 0) {
            item->count += count;
            return;
        }
    }
    counts->items = xrealloc(counts->items, (counts->count + 1) * sizeof *counts->items);
    counts->items[counts->count++] = (struct request_count){protocol, status, count};
}

void request_counts_merge(struct request_counts *total, const struct request_counts *counts)
{
    for (size_t i = 0; i < counts->count; i++)
        request_counts_add(total, counts->items[i].protocol, counts->items[i].status,
                           counts->items[i].count);
}

void request_counts_close(struct request_counts *counts)
{
    free(counts->items);
}

/* What inference requests are answered with: series that exist from the start, so that the first
 * error is an increase. */
static void seed_requests(struct request_counts *counts)
{
    static const char *const PROTOCOLS[] = {"oip", "v1"};
    static const int STATUSES[] = {200, 400, 413, 429, 499, 503, 504};
    for (size_t i = 0; i < LENGTH(PROTOCOLS); i++)
        for (size_t j = 0; j < LENGTH(STATUSES); j++)
            request_counts_add(counts, PROTOCOLS[i], STATUSES[j], 0);
}

void stats_init(struct stats *stats, const struct moed_model_info *info)
{
    *stats = (struct stats){.routing = tally_new(info)};
    if (uv_mutex_init(&stats->mutex) != 0)
        out_of_memory();
    seed_requests(&stats->requests);
    histogram_init(&stats->request_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->queue_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->compute_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->batch_rows, ROWS, LENGTH(ROWS));
}

void stats_close(struct stats *stats)
{
    tally_free(stats->routing);
    histogram_close(&stats->request_seconds);
    histogram_close(&stats->queue_seconds);
    histogram_close(&stats->compute_seconds);
    histogram_close(&stats->batch_rows);
    request_counts_close(&stats->requests);
    uv_mutex_destroy(&stats->mutex);
}

void stats_add_request(struct stats *stats, const char *protocol, int status, double seconds)
{
    uv_mutex_lock(&stats->mutex);
    request_counts_add(&stats->requests, protocol, status, 1);
    histogram_observe(&stats->request_seconds, seconds);
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_rejection(struct stats *stats, enum reject_reason reason)
{
    uv_mutex_lock(&stats->mutex);
    stats->rejected[reason]++;
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_wait(struct stats *stats, double seconds)
{
    uv_mutex_lock(&stats->mutex);
    histogram_observe(&stats->queue_seconds, seconds);
    uv_mutex_unlock(&stats->mutex);
}

void stats_add_batch(struct stats *stats, const struct tally_batch *batch, double seconds)
{
    uv_mutex_lock(&stats->mutex);
    histogram_observe(&stats->compute_seconds, seconds);
    histogram_observe(&stats->batch_rows, (double)batch->rows);
    stats->rows += batch->rows;
    tally_count(stats->routing, batch, 0, batch->rows);
    uv_mutex_unlock(&stats->mutex);
}

void stats_add(struct stats *total, struct stats *stats)
{
    uv_mutex_lock(&stats->mutex);
    request_counts_merge(&total->requests, &stats->requests);
    histogram_add(&total->request_seconds, &stats->request_seconds);
    histogram_add(&total->queue_seconds, &stats->queue_seconds);
    histogram_add(&total->compute_seconds, &stats->compute_seconds);
    histogram_add(&total->batch_rows, &stats->batch_rows);
    total->rows += stats->rows;
    total->queue_rows += stats->queue_rows;
    for (int reason = 0; reason < REJECT_COUNT; reason++)
        total->rejected[reason] += stats->rejected[reason];
    tally_add(total->routing, stats->routing);
    uv_mutex_unlock(&stats->mutex);
}

/* ---- all shards of a model ---- */

struct model_stats *model_stats_new(const struct moed_model_info *info, size_t loops, uint64_t now)
{
    struct model_stats *stats = xcalloc(1, sizeof *stats + loops * sizeof *stats->loop);
    atomic_init(&stats->holders, 1);
    if (uv_mutex_init(&stats->mutex) != 0)
        out_of_memory();
    history_init(&stats->history, NULL, now);
    stats->loops = loops;
    for (size_t i = 0; i < loops; i++)
        stats_init(&stats->loop[i], info);
    return stats;
}

struct model_stats *model_stats_hold(struct model_stats *stats)
{
    atomic_fetch_add_explicit(&stats->holders, 1, memory_order_relaxed);
    return stats;
}

void model_stats_release(struct model_stats *stats)
{
    if (atomic_fetch_sub(&stats->holders, 1) > 1)
        return;
    for (size_t i = 0; i < stats->loops; i++)
        stats_close(&stats->loop[i]);
    history_close(&stats->history);
    uv_mutex_destroy(&stats->mutex);
    free(stats);
}

bool model_stats_fit(const struct model_stats *stats, const struct moed_model_info *info)
{
    return tally_fits(stats->loop[0].routing, info);
}

void stats_snapshot(struct model_stats *stats, const struct moed_model_info *info,
                    struct stats *total)
{
    stats_init(total, info);
    for (size_t i = 0; i < stats->loops; i++)
        stats_add(total, &stats->loop[i]);
}

/* ---- windows ---- */

/* The routing of all shards; the caller frees it. */
static struct tally *totals_of(struct model_stats *stats)
{
    struct tally *totals = NULL;
    for (size_t i = 0; i < stats->loops; i++) {
        struct stats *shard = &stats->loop[i];
        uv_mutex_lock(&shard->mutex);
        if (totals)
            tally_add(totals, shard->routing);
        else
            totals = tally_copy(shard->routing);
        uv_mutex_unlock(&shard->mutex);
    }
    return totals;
}

void model_stats_tick(struct model_stats *stats, uint64_t now)
{
    uv_mutex_lock(&stats->mutex);
    struct tally *totals = totals_of(stats);
    history_tick(&stats->history, totals, now);
    uv_mutex_unlock(&stats->mutex);
    tally_free(totals);
}

/* What was counted from `then` until `until`; NULL: nothing had been. */
static struct tally *difference(const struct tally *until, const struct tally *then)
{
    struct tally *tally = tally_copy(until);
    if (then)
        tally_subtract(tally, then);
    return tally;
}

void stats_window_init(struct stats_window *of, struct model_stats *stats, enum window window,
                       uint64_t now)
{
    uint64_t began, other;
    uv_mutex_lock(&stats->mutex);
    const struct history *history = &stats->history;
    struct tally *totals = totals_of(stats);
    const struct tally *begin = history_begin(history, window, 0, now, &began);
    const struct tally *before = history_begin(history, window, 1, now, &other);
    const struct tally *recent = history_begin(history, WINDOW_5M, 0, now, &other);
    const struct tally *hour = history_begin(history, WINDOW_1H, 0, now, &other);
    *of = (struct stats_window){
        .now = now,
        .seconds = (double)(now - began) / 1e9,
        .tally = difference(totals, begin),
        .before = difference(begin ? begin : totals, begin ? before : totals),
        .recent = difference(totals, recent),
        .earlier = difference(recent ? recent : totals, recent ? hour : totals)};
    uv_mutex_unlock(&stats->mutex);
    tally_free(totals);
}

void stats_window_close(struct stats_window *of)
{
    tally_free(of->tally);
    tally_free(of->before);
    tally_free(of->recent);
    tally_free(of->earlier);
}

/* Counts of one served model, under one mutex. */
#include "server/stats.h"

#include <stdlib.h>
#include <string.h>

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

void stats_init(struct stats *stats, const struct moed_model_info *info)
{
    *stats = (struct stats){.info = info};
    if (uv_mutex_init(&stats->mutex) != 0)
        out_of_memory();
    histogram_init(&stats->request_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->queue_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->compute_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->batch_rows, ROWS, LENGTH(ROWS));
    stats->routing = xcalloc(info->gate_count, sizeof *stats->routing);
    for (size_t i = 0; i < info->gate_count; i++)
        stats->routing[i] = moed_gate_counts_new(info->gates[i].experts);
}

void stats_close(struct stats *stats)
{
    for (size_t i = 0; i < stats->info->gate_count; i++)
        moed_gate_counts_free(stats->routing[i]);
    free(stats->routing);
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

void stats_add_batch(struct stats *stats, size_t rows, double seconds,
                     const struct moed_routing *const routing[])
{
    uv_mutex_lock(&stats->mutex);
    histogram_observe(&stats->compute_seconds, seconds);
    histogram_observe(&stats->batch_rows, (double)rows);
    stats->rows += rows;
    for (size_t i = 0; i < stats->info->gate_count; i++)
        moed_gate_counts_count(stats->routing[i], routing[i], 0, routing[i]->items);
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
    for (int reason = 0; reason < REJECT_COUNT; reason++)
        total->rejected[reason] += stats->rejected[reason];
    for (size_t i = 0; i < stats->info->gate_count; i++)
        moed_gate_counts_add(total->routing[i], stats->routing[i]);
    uv_mutex_unlock(&stats->mutex);
}

struct routing_layer stats_routing(const struct stats *stats, size_t gate)
{
    const struct moed_gate_info *info = &stats->info->gates[gate];
    return (struct routing_layer){.name = info->name,
                                  .top_k = info->top_k,
                                  .expert_index = info->expert_index,
                                  .limited = info->limited,
                                  .counts = stats->routing[gate]};
}

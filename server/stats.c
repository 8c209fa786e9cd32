/* Per-model counters; see stats.h. */
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
        abort(); /* a small allocation, see core/error.h */
    histogram_init(&stats->request_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->queue_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->compute_seconds, SECONDS, LENGTH(SECONDS));
    histogram_init(&stats->batch_rows, ROWS, LENGTH(ROWS));
    stats->routing = xcalloc(info->gate_count, sizeof *stats->routing);
    for (size_t i = 0; i < info->gate_count; i++) {
        const size_t experts = info->gates[i].experts;
        struct routing_sums *sums = &stats->routing[i];
        sums->selected = xcalloc(experts, sizeof *sums->selected);
        sums->top1 = xcalloc(experts, sizeof *sums->top1);
        sums->weight_sum = xcalloc(experts, sizeof *sums->weight_sum);
        sums->probability_sum = xcalloc(experts, sizeof *sums->probability_sum);
    }
}

void stats_close(struct stats *stats)
{
    for (size_t i = 0; i < stats->info->gate_count; i++) {
        struct routing_sums *sums = &stats->routing[i];
        free(sums->selected);
        free(sums->top1);
        free(sums->weight_sum);
        free(sums->probability_sum);
    }
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

static void add_routing(struct routing_sums *sums, const struct moed_routing *routing)
{
    sums->items += routing->items;
    sums->dropped += routing->dropped;
    sums->entropy_sum += routing->entropy_sum;
    for (size_t i = 0; i < routing->experts; i++) {
        sums->selected[i] += routing->selected[i];
        sums->top1[i] += routing->top1[i];
        sums->weight_sum[i] += routing->weight_sum[i];
        sums->probability_sum[i] += routing->probability_sum[i];
    }
}

void stats_add_batch(struct stats *stats, size_t rows, double seconds,
                     const struct moed_routing *const routing[])
{
    uv_mutex_lock(&stats->mutex);
    histogram_observe(&stats->compute_seconds, seconds);
    histogram_observe(&stats->batch_rows, (double)rows);
    stats->rows += rows;
    for (size_t i = 0; i < stats->info->gate_count; i++)
        add_routing(&stats->routing[i], routing[i]);
    uv_mutex_unlock(&stats->mutex);
}

static void add_sums(struct routing_sums *total, const struct routing_sums *sums, size_t experts)
{
    total->items += sums->items;
    total->dropped += sums->dropped;
    total->entropy_sum += sums->entropy_sum;
    for (size_t i = 0; i < experts; i++) {
        total->selected[i] += sums->selected[i];
        total->top1[i] += sums->top1[i];
        total->weight_sum[i] += sums->weight_sum[i];
        total->probability_sum[i] += sums->probability_sum[i];
    }
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
        add_sums(&total->routing[i], &stats->routing[i], stats->info->gates[i].experts);
    uv_mutex_unlock(&stats->mutex);
}

struct routing_totals stats_routing_totals(const struct stats *stats, size_t gate)
{
    const struct moed_gate_info *moe = &stats->info->gates[gate];
    const struct routing_sums *sums = &stats->routing[gate];
    return (struct routing_totals){.layer = moe->name,
                                   .experts = moe->experts,
                                   .expert_index = moe->expert_index,
                                   .limited = moe->limited,
                                   .top_k = moe->top_k,
                                   .rows = sums->items,
                                   .dropped = sums->dropped,
                                   .selected = sums->selected,
                                   .top1 = sums->top1,
                                   .weight_sum = sums->weight_sum,
                                   .probability_sum = sums->probability_sum,
                                   .entropy_sum = sums->entropy_sum};
}

/* Rows of prompts are counted apart; those of generated tokens are the rest. */
#include "server/statistics/sequence_stats.h"

#include <stdlib.h>

#include "core/memory.h"

/* From a small model that has nothing else to do to a large one under load. */
static const double FIRST_SECONDS[] = {1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25,
                                       0.5,  1,      2.5,  5,    10,     25,   50};
static const double NEXT_SECONDS[] = {2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
                                      5e-2,   0.1,  0.25, 0.5,    1,    2.5};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

void sequence_stats_init(struct sequence_stats *stats, const struct moed_model_info *info)
{
    *stats = (struct sequence_stats){0};
    histogram_init(&stats->first_token_seconds, FIRST_SECONDS, LENGTH(FIRST_SECONDS));
    histogram_init(&stats->next_token_seconds, NEXT_SECONDS, LENGTH(NEXT_SECONDS));
    for (size_t i = 0; info->sequence && i < info->gate_count; i++)
        stats->experts += info->gates[i].experts;
    stats->prompt_selected = xcalloc(stats->experts, sizeof *stats->prompt_selected);
}

void sequence_stats_close(struct sequence_stats *stats)
{
    histogram_close(&stats->first_token_seconds);
    histogram_close(&stats->next_token_seconds);
    free(stats->prompt_selected);
}

void sequence_stats_add(struct sequence_stats *total, const struct sequence_stats *stats)
{
    total->gauges.running += stats->gauges.running;
    total->gauges.waiting += stats->gauges.waiting;
    total->gauges.pages_used += stats->gauges.pages_used;
    total->gauges.pages += stats->gauges.pages;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        total->tokens[phase] += stats->tokens[phase];
    total->cached += stats->cached;
    histogram_add(&total->first_token_seconds, &stats->first_token_seconds);
    histogram_add(&total->next_token_seconds, &stats->next_token_seconds);
    for (size_t i = 0; i < total->experts && i < stats->experts; i++)
        total->prompt_selected[i] += stats->prompt_selected[i];
}

void sequence_stats_count_prompt(struct sequence_stats *stats,
                                 const struct moed_routing *const *routing, size_t gates,
                                 size_t first, size_t end)
{
    uint64_t *selected = stats->prompt_selected;
    for (size_t gate = 0; gate < gates; gate++) {
        const struct moed_routing *of = routing[gate];
        for (size_t i = first * of->top_k; i < end * of->top_k; i++)
            if (of->expert[i] >= 0)
                selected[of->choice[i]]++;
        selected += of->experts;
    }
}

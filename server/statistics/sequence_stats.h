/* What is counted of a model of sequences, beside what is counted of every model: a part of a shard
 * (server/statistics/stats.h), whose mutex guards all but the gauges. */
#ifndef SERVER_SEQUENCE_STATS_H
#define SERVER_SEQUENCE_STATS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "core/moed.h"
#include "proto/prometheus.h"

enum phase { PHASE_PROMPT, PHASE_GENERATED, PHASE_COUNT };

/* Of all lanes of the shard. */
struct sequence_gauges {
    atomic_size_t running, waiting;  /* sequences */
    atomic_size_t pages_used, pages; /* of keys and values */
};

struct sequence_stats {
    struct sequence_gauges gauges;
    uint64_t tokens[PHASE_COUNT];         /* computed as prompt; generated */
    uint64_t cached;                      /* tokens of prompts that were found in the cache */
    struct histogram first_token_seconds; /* from a request's arrival */
    struct histogram next_token_seconds;  /* from token to token */
    size_t experts;                       /* of all gates; 0: not a model of sequences */
    uint64_t *prompt_selected;            /* [experts] by rows of prompts, gate after gate */
};

void sequence_stats_init(struct sequence_stats *stats, const struct moed_model_info *info);
void sequence_stats_close(struct sequence_stats *stats);

/* total += stats */
void sequence_stats_add(struct sequence_stats *total, const struct sequence_stats *stats);

/* Counts the experts of the prompt's rows [first, end) of a step. */
void sequence_stats_count_prompt(struct sequence_stats *stats,
                                 const struct moed_routing *const *routing, size_t gates,
                                 size_t first, size_t end);

#endif

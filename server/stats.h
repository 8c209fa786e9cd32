/* The counters of one served model on one loop thread. Only ever added to, by that thread; any
 * thread may add them up with those of other loops. The mutex is held for nanoseconds and nearly
 * never contended. */
#ifndef SERVER_STATS_H
#define SERVER_STATS_H

#include <stdint.h>
#include <uv.h>

#include "core/moed.h"
#include "proto/prometheus.h"
#include "proto/routing.h"

/* Why a request was turned away without being computed. */
#define REJECT_REASONS(X)                                                                          \
    X(INVALID, "invalid")                                                                          \
    X(QUEUE_FULL, "queue_full")                                                                    \
    X(DEADLINE, "deadline")                                                                        \
    X(DISCONNECTED, "disconnected")

enum reject_reason {
#define REJECT_ENUM(name, word) REJECT_##name,
    REJECT_REASONS(REJECT_ENUM)
#undef REJECT_ENUM
        REJECT_COUNT
};

const char *reject_word(enum reject_reason reason);

/* Requests by protocol and status; a handful of pairs, so a short list searched from the front. */
struct request_count {
    const char *protocol; /* static */
    int status;
    uint64_t count;
};

struct request_counts {
    struct request_count *items;
    size_t count;
};

void request_counts_add(struct request_counts *counts, const char *protocol, int status,
                        uint64_t count);
/* total += counts */
void request_counts_merge(struct request_counts *total, const struct request_counts *counts);
void request_counts_close(struct request_counts *counts);

/* One gate's sums since the model was loaded. */
struct routing_sums {
    uint64_t items, dropped;
    uint64_t *selected, *top1;
    double *weight_sum, *probability_sum;
    double entropy_sum;
};

struct stats {
    const struct moed_model_info *info;
    uv_mutex_t mutex; /* guards all below */
    struct request_counts requests;
    struct histogram request_seconds; /* whole request, first byte to answer */
    struct histogram queue_seconds;   /* submitted to taken */
    struct histogram compute_seconds; /* one batch */
    struct histogram batch_rows;
    uint64_t rows;
    uint64_t rejected[REJECT_COUNT];
    struct routing_sums *routing; /* [gate_count] */
};

void stats_init(struct stats *stats, const struct moed_model_info *info);
void stats_close(struct stats *stats);

void stats_add_request(struct stats *stats, const char *protocol, int status, double seconds);
void stats_add_rejection(struct stats *stats, enum reject_reason reason);
void stats_add_wait(struct stats *stats, double seconds);

/* Adds one computed batch and what each gate did with it: routing[info->gate_count]. */
void stats_add_batch(struct stats *stats, size_t rows, double seconds,
                     const struct moed_routing *const routing[]);

/* total += stats, which may belong to another thread; `total` to the caller. */
void stats_add(struct stats *total, struct stats *stats);

/* The sums of one gate as the wire formats want them; borrowed from `stats`. */
struct routing_totals stats_routing_totals(const struct stats *stats, size_t gate);

#endif

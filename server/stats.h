/* The counters of one served model on one loop thread. Only that thread counts; any thread may add
 * them up with those of other loops. The mutex is held while one batch is counted, and contended
 * only while someone reads. */
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
    struct moed_gate_counts **routing; /* [gate_count] */
};

void stats_init(struct stats *stats, const struct moed_model_info *info);
void stats_close(struct stats *stats);

void stats_add_request(struct stats *stats, const char *protocol, int status, double seconds);
void stats_add_rejection(struct stats *stats, enum reject_reason reason);
void stats_add_wait(struct stats *stats, double seconds);

/* Adds one computed batch and what each gate decided: routing[info->gate_count]. */
void stats_add_batch(struct stats *stats, size_t rows, double seconds,
                     const struct moed_routing *const routing[]);

/* total += stats. `stats` may be another thread's, `total` is the caller's. */
void stats_add(struct stats *total, struct stats *stats);

/* One gate as the wire formats want it; borrowed from `stats`. */
struct routing_layer stats_routing(const struct stats *stats, size_t gate);

#endif

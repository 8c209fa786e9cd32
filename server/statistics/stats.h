/* The counters of a model: one shard per loop. Only that loop's thread counts in it; any thread may
 * add up all of them. A shard's mutex is held while one batch is counted, and contended only while
 * someone reads. */
#ifndef SERVER_STATS_H
#define SERVER_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/moed.h"
#include "proto/oip_statistics.h"
#include "proto/prometheus.h"
#include "proto/routing_detail.h"
#include "server/statistics/feedback.h"
#include "server/statistics/history.h"
#include "server/statistics/pending.h"
#include "server/statistics/sequence_stats.h"
#include "server/statistics/tags.h"

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

/* One shard, or a sum of shards. */
struct stats {
    atomic_size_t queue_rows; /* waiting */
    uv_mutex_t mutex;         /* guards all below */
    struct request_counts requests;
    struct histogram request_seconds; /* whole request, first byte to answer */
    struct histogram queue_seconds;   /* submitted to taken */
    struct histogram compute_seconds; /* one batch */
    struct histogram batch_rows;
    uint64_t rows;
    uint64_t batches;            /* numbers them, from 1 on */
    struct oip_statistics times; /* server/routes/request_times.h */
    uint64_t rejected[REJECT_COUNT];
    struct sequence_stats sequences;
    struct routing_detail *details; /* [gate_count]; owned; NULL in a sum */
    /* [gate_count] of the prompts' rows of each step, and of the others; owned; NULL in a sum and
     * for models without sequences */
    struct routing_detail *phases[PHASE_COUNT];
    struct pending pending; /* rows that are in none of these yet */
    size_t tag_count;
    struct tally **routing; /* [tag_count] by tag; owned; NULL, but for the first: no rows yet */
};

/* tag_count 1: all tags in one, as in a sum. */
void stats_init(struct stats *stats, const struct moed_model_info *info, size_t tag_count);
void stats_close(struct stats *stats);

/* From now on it counts details. classes: of the output that labels are about; 0: none. */
void stats_need_details(struct stats *stats, const struct moed_model_info *info, size_t classes);

/* The caller holds the mutex, if others may count or look. */
void stats_add_request(struct stats *stats, const char *protocol, int status, double seconds);
void stats_add_rejection(struct stats *stats, enum reject_reason reason);
void stats_add_wait(struct stats *stats, double seconds);

/* Adds one computed batch, to which what is counted until the next belongs. */
void stats_add_batch(struct stats *stats, size_t rows, double seconds);

/* Of its rows, those whose answer has a NaN or an infinity. */
void stats_add_nonfinite(struct stats *stats, size_t rows);

/* Counts what the gates decided for rows [first, end) of a batch, on behalf of a tag. */
void stats_count(struct stats *stats, size_t tag, const struct tally_batch *batch, size_t first,
                 size_t end);

/* Counts the same rows as routed otherwise than the gates decide, and in nothing else. */
void stats_count_intervened(struct stats *stats, size_t tag, const struct tally_batch *batch,
                            size_t first, size_t end);

/* The rows [first, end) of one sequence in a step, of a prompt up to `generated`. */
struct step_span {
    size_t first, generated, end;
    size_t tag;
    bool intervened; /* routed as its request asked */
};

/* What is counted of a step of sequences beside what the gates decided. */
struct step_counts {
    double seconds;
    size_t prompt_rows;      /* of prompts, counted or not */
    size_t nonfinite;        /* as for stats_add_nonfinite() */
    struct step_span *spans; /* [span_count] those that are counted, in order; this changes them */
    size_t span_count;
};

/* Adds a computed step. Rows of small ones wait (server/statistics/pending.h). */
void stats_add_step(struct stats *stats, const struct tally_batch *batch,
                    const struct step_counts *step);

/* Counts tokens that were found in the cache, and a generated token with the time since the
 * request's arrival, or since the token before it. */
void stats_add_cached(struct stats *stats, size_t tokens);
void stats_add_token(struct stats *stats, bool first, double seconds);

/* Counts the true classes labels[rows] of answered rows; -1: not known. */
void stats_judge(struct stats *stats, size_t tag, const struct answered_rows *rows,
                 const int32_t *labels);

/* Takes the mutex, for who reads what is counted of gates: no row waits any more. */
void stats_lock(struct stats *stats);
void stats_unlock(struct stats *stats);

/* total += stats, with all tags in one. `stats` may be another thread's, `total` is the caller's.
 */
void stats_add(struct stats *total, struct stats *stats);

/* What is recorded between two moments (server/statistics/recorder.h): the totals then. Owned. */
struct recorded {
    struct tally *from;  /* NULL: nothing is */
    struct tally *until; /* NULL: it goes on */
};

/* The clock of routing statistics: uv_hrtime() since an origin long before it, so that what was
 * counted before this process, or this machine, was started has a time, too. stats_time(): of such
 * a moment. */
uint64_t stats_now(void);
uint64_t stats_time(uint64_t hrtime);

/* All shards. Held by models: a reload makes a new model, which goes on with the old one's. */
struct model_stats {
    atomic_size_t holders;
    struct tags tags;
    struct feedback feedback;
    uv_mutex_t mutex;          /* guards the next two; taken before a shard's */
    struct history *histories; /* [tags_end()] by tag */
    struct recorded recorded;
    atomic_bool unread; /* what is kept of it on the disk is not in it, and is not to be replaced */
    size_t loops;
    struct stats loop[]; /* [loops + 1]; the last is what a process before this one has counted: it
                            is in windows and details, not in the counters of /metrics, of which
                            rate() would take a little less than before for a new start */
};

/* Times are uv_hrtime() or a test's own. */
struct model_stats *model_stats_new(const struct moed_model_info *info, size_t classes,
                                    size_t loops, size_t max_tags, uint64_t now);
struct model_stats *model_stats_hold(struct model_stats *stats);
void model_stats_release(struct model_stats *stats);

/* Whether they count what this model has: as many gates, of as many experts, for rows or for
 * sequences. */
bool model_stats_fit(const struct model_stats *stats, const struct moed_model_info *info,
                     size_t classes);

/* The sum of the loops' shards; the caller closes `total`. */
void stats_snapshot(struct model_stats *stats, const struct moed_model_info *info,
                    struct stats *total);

/* Adds the details of a gate, of this process and of those before it, to `total`, which is empty.
 */
void model_stats_detail(struct model_stats *stats, size_t gate, struct routing_detail *total);

/* The same of what a phase's rows chose in each step. */
void model_stats_phase(struct model_stats *stats, enum phase phase, size_t gate,
                       struct routing_detail *total);

/* How many of the latest uses of experts the loops keep together, with those of the processes
 * before: not more with every restart. */
size_t model_stats_uses(const struct model_stats *stats);

/* From now on windows and details begin here. Counters for rate() are not touched: they never fall.
 */
void model_stats_reset(struct model_stats *stats, uint64_t now);

/* Adds what a process before this one has counted, read into statistics of its own, when this one
 * counts already; nothing counts in `earlier`, which is good for nothing afterwards but to be
 * released. Windows begin anew. Any thread. */
void model_stats_join(struct model_stats *stats, struct model_stats *earlier, uint64_t now);

/* Moves the windows on, and chooses the busiest experts of gates that have too many for a table of
 * all pairs; every HISTORY_TICK_MS or so. Any thread. */
void model_stats_tick(struct model_stats *stats, uint64_t now);

/* Rows ever counted on behalf of a tag, by this process or by those before it, too. */
uint64_t model_stats_rows(struct model_stats *stats, size_t tag, bool before_too);

/* A tag's routing in all shards; the caller frees it. NULL: none yet. */
struct tally *model_stats_totals(struct model_stats *stats, size_t tag);

/* What was routed in a window, and what it is compared with. */
struct stats_window {
    uint64_t now;
    double seconds;        /* from the window's beginning until now */
    struct tally *tally;   /* in the window */
    struct tally *before;  /* in the one before it, of the same length; zero for WINDOW_ALL */
    struct tally *recent;  /* in the last five minutes */
    struct tally *earlier; /* in the hour, but for the last five minutes */
};

/* tag STATS_ALL_TAGS: of all rows. Not `compared`: only `tally`, which is all that a page that is
 * drawn every second needs of large models; the other three are NULL. */
enum { STATS_ALL_TAGS = -1 };
void stats_window_init(struct stats_window *of, struct model_stats *stats, enum window window,
                       int tag, bool compared, uint64_t now);
void stats_window_close(struct stats_window *of);

#endif

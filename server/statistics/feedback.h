/* Answers that wait for their labels, by request id. The newest FEEDBACK_MAX_BYTES of each model
 * are kept: labels for older ones, or for unknown ids, are lost, and counted as lost. */
#ifndef SERVER_FEEDBACK_H
#define SERVER_FEEDBACK_H

#include <sys/queue.h>
#include <uv.h>

#include "server/compute/tally.h"

/* Ten thousands of rows of ten classes; and what a client that sends ids without end may take. */
enum { FEEDBACK_MAX_BYTES = 4 << 20, FEEDBACK_BUCKETS = 1024 };

/* One request, in one allocation. */
struct remembered {
    TAILQ_ENTRY(remembered) by_age;
    LIST_ENTRY(remembered) in_bucket;
    size_t bytes;
    size_t tag;
    struct answered_rows rows;
    char *id;
};

struct feedback {
    uv_mutex_t mutex;
    size_t bytes;
    uint64_t lost;                           /* requests for labels that found no answer */
    TAILQ_HEAD(, remembered) all;            /* oldest first */
    LIST_HEAD(bucket, remembered) * buckets; /* [FEEDBACK_BUCKETS]; NULL: nothing remembered yet */
};

void feedback_init(struct feedback *feedback);
void feedback_close(struct feedback *feedback);

/* Copies the rows. They may be too many to be remembered at all. */
void feedback_remember(struct feedback *feedback, const char *id, size_t tag,
                       const struct answered_rows *rows, size_t gate_count);

/* The newest answer of that id, which the caller frees. NULL if there is none, and one more is
 * lost, or if it has another number of rows, *has: then it is still there. */
struct remembered *feedback_take(struct feedback *feedback, const char *id, size_t rows,
                                 size_t *has);

uint64_t feedback_lost(struct feedback *feedback);

#endif

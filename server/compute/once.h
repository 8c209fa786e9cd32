/* A lane whose work is done in one batch: rows wait in a queue, a batch of them is computed, each
 * job is finished when all of its rows are. Batches form because requests arrive while others are
 * computed, or were read in the same turn of the loop; `max_queue_delay` may hold one open. Loop
 * thread only, but for the run. */
#ifndef SERVER_ONCE_H
#define SERVER_ONCE_H

#include "server/compute/pace.h"
#include "server/compute/queue.h"
#include "server/compute/scheduler.h"
#include "server/models/model.h"

struct once_options {
    size_t loop; /* which shard of the statistics is this loop's */
    size_t max_batch_rows, max_queue_rows;
    size_t loops;     /* that share the queue rows of a model with a limit of its own */
    unsigned threads; /* of the compute team */
    uint64_t max_queue_delay_ns;
    /* All rows of a job are done, or it failed and none is running any more. */
    void (*on_finished)(struct job *job);
    /* The model's files were truncated while they were mapped; called once for a model. */
    void (*on_damaged)(void *context);
    void *context;
};

struct once {
    struct lane lane; /* first: the scheduler knows no more */
    struct scheduler *scheduler;
    struct once_options options; /* with the model's own limits */
    struct stats *stats;         /* this loop's shard of its */
    struct moed_scratch *scratch;
    struct queue queue;
    struct pace pace;
    size_t rows_shown;   /* of the queue's, in the statistics */
    struct batch *batch; /* that has begun */
    bool cut;            /* it was kept short for other lanes */
};

static inline struct once *once_of(struct lane *lane)
{
    return (struct once *)(void *)lane;
}

/* NULL with an error when there is no memory for its scratch. */
MUST_CHECK struct once *once_new(struct model *model, struct scheduler *scheduler,
                                 const struct once_options *options, struct error *err);

/* Queues a job's rows, unless those before them take longer than it may wait. A job that is small
 * enough is computed before this returns: on_finished was called, and the job may be gone. On error
 * it was not queued. */
MUST_CHECK int once_submit(struct once *once, struct job *job, struct error *err);

/* When a refused client may come back: seconds until what waits has been computed. */
unsigned once_retry_after(const struct once *once);

/* Gives up on a job: its waiting rows are dropped; on_finished follows, at once unless some of its
 * rows are being computed. job->error says why. */
void once_cancel(struct once *once, struct job *job);

#endif

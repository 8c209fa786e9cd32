/* The bounded queue of one model: which rows are computed next, and together.
 *
 * A job's numbers are read from its request's body when it arrives, into a block of its own. Which
 * rows a batch has is decided when it is taken: a job may be spread over several batches (unless
 * the model limits what its experts take of one request), and a batch has rows of many jobs. Tags
 * share the rows of batches equally, priorities by their weights (self-clocked fair queueing,
 * Golestani 1994); within a tag see server/compute/flow.h. Loop thread only, but for
 * batch_gather(); a batch taken from the queue belongs to the taker until queue_recycle(). */
#ifndef SERVER_QUEUE_H
#define SERVER_QUEUE_H

#include "server/compute/batch.h"
#include "server/compute/flow.h"

TAILQ_HEAD(flow_list, flow);

struct queue {
    const struct moed_model_info *info;
    size_t batch_rows, max_rows;
    bool whole_jobs;        /* a job is never split: experts have a capacity per request */
    size_t rows;            /* waiting */
    struct flow_list flows; /* that have rows */
    uint64_t turn;          /* virtual time: that of the flow whose rows were taken last */
    struct batch *spare;    /* batches for use; at least one while rows wait and none is taken */
    size_t spare_count;
};

void queue_init(struct queue *queue, const struct moed_model_info *info, size_t batch_rows,
                size_t max_rows);
void queue_close(struct queue *queue);

/* Whether so many rows may wait, too. */
MUST_CHECK int queue_check(const struct queue *queue, size_t rows, struct error *err);

/* Reads all rows of the job from its request's body. On error (a bad number in the body, no memory)
 * the job has none. */
MUST_CHECK int queue_read(struct queue *queue, struct job *job, struct error *err);

/* A job that has been checked and read waits from now on, by its tag and its request's priority. */
void queue_push(struct queue *queue, struct job *job);

/* Rows that will be computed before those of such a job at least. */
size_t queue_rows_before(const struct queue *queue, enum job_priority priority, size_t tag,
                         size_t rows);

/* When the oldest of the waiting jobs was submitted; the queue is not empty. */
uint64_t queue_oldest_ns(const struct queue *queue);

/* Takes the next batch, of at most so many rows (where jobs are whole, of one job at least); NULL
 * when nothing waits. Its rows count as running, and its spans are filled. */
struct batch *queue_take(struct queue *queue, size_t most_rows);
void queue_recycle(struct queue *queue, struct batch *batch);

/* Drops the job's waiting rows. */
void queue_cancel(struct queue *queue, struct job *job);

#endif

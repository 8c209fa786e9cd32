/* The bounded queue of one model: rows wait in the very batch buffers they will be computed in.
 *
 * A queue is a list of batches: none is empty, and all but the last are full, save where jobs were
 * cancelled. A job's numbers are read from its request's body straight into the last batch, and on
 * into a new one when it is full, so a job may be spread over several batches (unless the model
 * limits what its experts take of one request) and a batch holds rows of many jobs. Loop thread
 * only; a batch taken from the queue belongs to the taker until queue_recycle(). */
#ifndef SERVER_QUEUE_H
#define SERVER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/moed.h"
#include "server/compute/job.h"

/* Consecutive rows of one job in one batch. */
struct segment {
    struct job *job;
    size_t job_row; /* the first of them in the job */
    size_t rows;
};

struct batch {
    struct batch *next;
    size_t rows;
    void **inputs;            /* [input_count] [batch_rows, elements], as the engine wants them */
    float **outputs;          /* [output_count] [batch_rows, elements] */
    struct segment *segments; /* [batch_rows] */
    size_t segment_count;
    struct moed_span *spans; /* [batch_rows] one for each segment */
    uint64_t opened_ns;      /* when its first row arrived */
};

struct queue {
    const struct moed_model_info *info;
    size_t batch_rows, max_rows;
    bool whole_jobs; /* a job is never split: experts have a capacity per request */
    size_t rows;     /* waiting */
    struct batch *head, *tail;
    struct batch *spare; /* recycled batches */
    size_t spare_count;
};

void queue_init(struct queue *queue, const struct moed_model_info *info, size_t batch_rows,
                size_t max_rows);
void queue_close(struct queue *queue);

/* Reads all rows of the job into the queue. On error (a bad number in the body, queue full, no
 * memory) the queue is unchanged. */
MUST_CHECK int queue_push(struct queue *queue, struct job *job, uint64_t now_ns, struct error *err);

/* Removes and returns the first batch; NULL when nothing waits. Its rows count as running, and its
 * spans are filled. */
struct batch *queue_take(struct queue *queue);
void queue_recycle(struct queue *queue, struct batch *batch);

/* Drops the job's waiting rows. */
void queue_cancel(struct queue *queue, struct job *job);

#endif

/* Rows that are computed together, of one job or of many. */
#ifndef SERVER_BATCH_H
#define SERVER_BATCH_H

#include <stddef.h>

#include "core/moed.h"
#include "server/compute/job.h"

/* Consecutive rows of one job in one batch, which has no others of it. */
struct segment {
    struct job *job;
    size_t job_row; /* the first of them in the job */
    size_t rows;
};

struct batch {
    struct batch *next;
    size_t rows;
    const void **inputs;      /* [input_count] [rows, elements], after batch_gather() */
    void **gathered;          /* [input_count] [batch_rows, elements] where rows of several jobs
                                 are put together */
    float **outputs;          /* [output_count] [batch_rows, elements] */
    struct segment *segments; /* [batch_rows] */
    size_t segment_count;
    struct moed_span *spans; /* [batch_rows] one for each segment */
};

/* Room for so many rows. NULL with an error when there is no memory. */
MUST_CHECK struct batch *batch_new(const struct moed_model_info *info, size_t rows,
                                   struct error *err);
void batch_free(struct batch *batch, const struct moed_model_info *info);

/* Adds the job's next rows, before they are counted as running. */
void batch_add(struct batch *batch, struct job *job, size_t rows);

/* Puts the rows together; on any thread. */
void batch_gather(struct batch *batch, const struct moed_model_info *info);

/* Where a job has the rows of an input. */
char *batch_job_input(const struct job *job, const struct moed_model_info *info, size_t input);

#endif

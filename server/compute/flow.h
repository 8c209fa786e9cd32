/* The waiting jobs of one tag at one priority, and which of them is next.
 *
 * Half of what is taken goes to the oldest job, so that every one comes to its end in twice its
 * time at most, and half to the shortest, so that a request of one row does not wait for one of a
 * thousand. Where all jobs are of one length, both are the oldest. Loop thread only. */
#ifndef SERVER_FLOW_H
#define SERVER_FLOW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "server/compute/job.h"

/* Jobs are sorted by length in powers of two; the last list has all from 2048 rows on. */
enum { FLOW_LENGTHS = 12 };

TAILQ_HEAD(job_list, job);

struct flow {
    enum job_priority priority;
    size_t tag;
    size_t rows;   /* waiting */
    uint64_t turn; /* rows that it has had, weighted by its priority, in the queue's virtual time */
    int64_t ahead; /* rows that the oldest jobs have had more than the shortest */
    struct job_list by_age; /* oldest first */
    struct {
        struct job_list jobs; /* oldest first, but for those that were longer before */
        size_t rows;
    } by_length[FLOW_LENGTHS];
    TAILQ_ENTRY(flow) link;
};

struct flow *flow_new(enum job_priority priority, size_t tag);

/* A job with rows_waiting. */
void flow_add(struct flow *flow, struct job *job);

/* Takes away its last rows, as many as wait. */
void flow_remove(struct flow *flow, struct job *job);

/* The flow has rows. */
struct job *flow_next(const struct flow *flow);

/* The next job's next rows are taken: they wait no more, but run. */
void flow_take(struct flow *flow, size_t rows);

/* Rows that go before those of a new job of so many: of jobs that are not longer. */
size_t flow_rows_before(const struct flow *flow, size_t rows);

#endif

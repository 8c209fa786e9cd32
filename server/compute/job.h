/* A job: one inference request from its decoding to its answer. predict.c owns it; a lane borrows
 * it until it is finished. Loop thread only. */
#ifndef SERVER_JOB_H
#define SERVER_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/error.h"
#include "proto/protocol.h"
#include "server/compute/priority.h"

struct model;
struct moed_intervention;
struct quarantined;
struct once;
struct exchange;
struct predict;
struct flow;

struct job {
    struct predict *predict;
    struct model *model; /* held */
    struct once *lane;
    struct exchange *exchange; /* its `owner` is this job, once submitted */
    const struct protocol *protocol;
    struct infer_request request;
    struct moed_intervention *asked; /* that the request asks for, with what is in quarantine;
                                        owned; NULL: the request asks for nothing */
    struct quarantined *quarantined; /* held; NULL: no expert is in quarantine */
    const struct moed_intervention *intervention; /* of the two; NULL: none */
    bool wants_routing;
    bool counted;         /* in the statistics of routing */
    const char *tag_name; /* on whose behalf; borrowed from the request or its header; NULL: none */
    size_t tag;           /* its index (server/statistics/tags.h), once the job is accepted */

    /* Results, filled batch by batch; [rows, ...], see struct infer_result. */
    float **outputs;
    int32_t **routing_experts; /* NULL unless wants_routing, like the weights */
    float **routing_weights;
    float **routing_probabilities; /* [gate_count]; NULL of gates that the request does not ask */
    int32_t **first; /* [gate_count] the expert each item ranked first, for the judgement of
                        answers; NULL unless there are labels, or may be
                        (server/statistics/judgement.h) */
    void *results;   /* the block that holds all of them */

    /* The queue's (server/compute/queue.h). */
    char *values;        /* of the inputs, one after the other: [rows, elements]; owned; NULL: they
                            have not been read */
    struct flow *flow;   /* where its rows wait; NULL: none does */
    size_t segment;      /* of the batch that is put together */
    size_t rows_waiting; /* in the queue: the last ones */
    size_t rows_running; /* in a batch being computed */
    TAILQ_ENTRY(job) by_age, by_length;

    uint64_t decoding_since_ns;
    uint64_t submitted_ns;
    uint64_t queue_ns;   /* until the first batch with rows of it began; 0: none has */
    uint64_t compute_ns; /* of all batches with rows of it */
    uint64_t deadline_ns;
    struct error error; /* if set, the answer once nothing is running */

    TAILQ_ENTRY(job) link; /* all unanswered jobs, oldest first */
};

/* 0 is the default; numbers below the lowest are the lowest. */
static inline enum job_priority job_priority_of(const struct job *job)
{
    const uint64_t asked = job->request.priority;
    return asked == 0              ? PRIORITY_NORMAL
           : asked >= PRIORITY_LOW ? PRIORITY_LOW
                                   : (enum job_priority)asked;
}

#endif

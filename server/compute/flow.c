/* Two orders of the same jobs: a list by age, and short lists by length. */
#include "server/compute/flow.h"

#include "core/memory.h"

struct flow *flow_new(enum job_priority priority, size_t tag)
{
    struct flow *flow = xcalloc(1, sizeof *flow);
    flow->priority = priority;
    flow->tag = tag;
    TAILQ_INIT(&flow->by_age);
    for (size_t i = 0; i < FLOW_LENGTHS; i++)
        TAILQ_INIT(&flow->by_length[i].jobs);
    return flow;
}

static size_t length_of(size_t rows)
{
    size_t length = 0;
    while (length + 1 < FLOW_LENGTHS && rows >> (length + 1) > 0)
        length++;
    return length;
}

static void add_by_length(struct flow *flow, struct job *job)
{
    const size_t length = length_of(job->rows_waiting);
    TAILQ_INSERT_TAIL(&flow->by_length[length].jobs, job, by_length);
    flow->by_length[length].rows += job->rows_waiting;
}

static void remove_by_length(struct flow *flow, struct job *job)
{
    const size_t length = length_of(job->rows_waiting);
    TAILQ_REMOVE(&flow->by_length[length].jobs, job, by_length);
    flow->by_length[length].rows -= job->rows_waiting;
}

void flow_add(struct flow *flow, struct job *job)
{
    job->flow = flow;
    flow->rows += job->rows_waiting;
    TAILQ_INSERT_TAIL(&flow->by_age, job, by_age);
    add_by_length(flow, job);
}

void flow_remove(struct flow *flow, struct job *job)
{
    TAILQ_REMOVE(&flow->by_age, job, by_age);
    remove_by_length(flow, job);
    flow->rows -= job->rows_waiting;
    job->rows_waiting = 0;
    job->flow = NULL;
}

static struct job *oldest_of(const struct flow *flow)
{
    return TAILQ_FIRST(&flow->by_age);
}

static struct job *shortest_of(const struct flow *flow)
{
    size_t length = 0;
    while (TAILQ_EMPTY(&flow->by_length[length].jobs))
        length++;
    return TAILQ_FIRST(&flow->by_length[length].jobs);
}

struct job *flow_next(const struct flow *flow)
{
    return flow->ahead > 0 ? shortest_of(flow) : oldest_of(flow);
}

void flow_take(struct flow *flow, size_t rows)
{
    struct job *job = flow_next(flow);
    if (oldest_of(flow) != shortest_of(flow))
        flow->ahead += job == oldest_of(flow) ? (int64_t)rows : -(int64_t)rows;
    flow->rows -= rows;
    remove_by_length(flow, job);
    job->rows_waiting -= rows;
    job->rows_running += rows;
    if (job->rows_waiting > 0) {
        add_by_length(flow, job);
    } else {
        TAILQ_REMOVE(&flow->by_age, job, by_age);
        job->flow = NULL;
    }
}

size_t flow_rows_before(const struct flow *flow, size_t rows)
{
    size_t before = 0;
    for (size_t i = 0; i <= length_of(rows); i++)
        before += flow->by_length[i].rows;
    return before;
}

/* Flows come and go with their rows, so that only those that wait are looked at. */
#include "server/compute/queue.h"

#include <stdlib.h>

#include "core/memory.h"
#include "core/text.h"

/* Batches kept for reuse: one is computed, and answering its jobs may bring rows for another.
 * Further ones are freed, so that the memory of a burst is given back. */
enum { MAX_SPARE_BATCHES = 2 };

/* What a row of each priority costs: the share of a priority that is flooded is eight times that
 * of the next one, so the lowest always gets some. */
static const uint64_t WEIGHTS[] = {[PRIORITY_HIGH] = 1, [PRIORITY_NORMAL] = 8, [PRIORITY_LOW] = 64};

void queue_init(struct queue *queue, const struct moed_model_info *info, size_t batch_rows,
                size_t max_rows)
{
    *queue = (struct queue){.info = info, .batch_rows = batch_rows, .max_rows = max_rows};
    TAILQ_INIT(&queue->flows);
    for (size_t i = 0; i < info->gate_count; i++)
        queue->whole_jobs |= info->gates[i].limited;
}

void queue_close(struct queue *queue)
{
    for (struct flow *flow; (flow = TAILQ_FIRST(&queue->flows));) {
        TAILQ_REMOVE(&queue->flows, flow, link);
        free(flow);
    }
    for (struct batch *batch; (batch = queue->spare);) {
        queue->spare = batch->next;
        batch_free(batch, queue->info);
    }
}

/* ---- arriving ---- */

int queue_check(const struct queue *queue, size_t rows, struct error *err)
{
    if (rows > queue->max_rows - queue->rows)
        return error_set(
            err, ERROR_OVERLOADED,
            "the queue is full: %zu row%s in it, %zu more would exceed the limit of %zu",
            queue->rows, text_s(queue->rows), rows, queue->max_rows);
    if (queue->whole_jobs && rows > queue->batch_rows)
        return error_set(
            err, ERROR_TOO_LARGE,
            "%zu row%s, expected at most %zu: the experts of this model have a capacity "
            "per request, so a request must fit one batch",
            rows, text_s(rows), queue->batch_rows);
    return 0;
}

/* Taking a batch cannot fail: there is one. */
static int provide_batch(struct queue *queue, struct error *err)
{
    if (!queue->spare) {
        struct batch *batch = batch_new(queue->info, queue->batch_rows, err);
        if (!batch)
            return -1;
        queue_recycle(queue, batch);
    }
    return 0;
}

static int read_inputs(const struct queue *queue, struct job *job, struct error *err)
{
    for (size_t i = 0; i < queue->info->input_count; i++) {
        struct infer_reader reader;
        infer_reader_init(&reader, &job->request, i);
        if (infer_reader_rows(&reader, job->request.rows, batch_job_input(job, queue->info, i),
                              err) != 0)
            return -1;
    }
    return 0;
}

int queue_read(struct queue *queue, struct job *job, struct error *err)
{
    size_t elements = 0;
    for (size_t i = 0; i < queue->info->input_count; i++)
        elements += queue->info->inputs[i].elements;
    if (provide_batch(queue, err) != 0)
        return -1;
    job->values = malloc(job->request.rows * elements * MOED_ELEMENT_BYTES);
    if (!job->values)
        return error_set(err, ERROR_UNAVAILABLE,
                         "no memory for the numbers of %zu row%s; come back later or send fewer",
                         job->request.rows, text_s(job->request.rows));
    if (read_inputs(queue, job, err) == 0)
        return 0;
    free(job->values);
    job->values = NULL;
    return -1;
}

static struct flow *find_flow(const struct queue *queue, enum job_priority priority, size_t tag)
{
    struct flow *flow;
    TAILQ_FOREACH(flow, &queue->flows, link)
    if (flow->priority == priority && flow->tag == tag)
        break;
    return flow;
}

void queue_push(struct queue *queue, struct job *job)
{
    const enum job_priority priority = job_priority_of(job);
    struct flow *flow = find_flow(queue, priority, job->tag);
    if (!flow) {
        flow = flow_new(priority, job->tag);
        flow->turn = queue->turn + WEIGHTS[priority]; /* idle time is not saved up */
        TAILQ_INSERT_TAIL(&queue->flows, flow, link);
    }
    job->rows_waiting = job->request.rows;
    queue->rows += job->request.rows;
    flow_add(flow, job);
}

/* ---- waiting ---- */

size_t queue_rows_before(const struct queue *queue, enum job_priority priority, size_t tag,
                         size_t rows)
{
    const struct flow *flow = find_flow(queue, priority, tag);
    return flow ? flow_rows_before(flow, rows) : 0;
}

uint64_t queue_oldest_ns(const struct queue *queue)
{
    const struct flow *flow;
    uint64_t oldest = UINT64_MAX;
    TAILQ_FOREACH(flow, &queue->flows, link)
    if (TAILQ_FIRST(&flow->by_age)->submitted_ns < oldest)
        oldest = TAILQ_FIRST(&flow->by_age)->submitted_ns;
    return oldest;
}

static void forget_empty(struct queue *queue, struct flow *flow)
{
    if (flow->rows > 0)
        return;
    TAILQ_REMOVE(&queue->flows, flow, link);
    free(flow);
}

void queue_cancel(struct queue *queue, struct job *job)
{
    struct flow *flow = job->flow;
    if (!flow)
        return;
    queue->rows -= job->rows_waiting;
    flow_remove(flow, job);
    forget_empty(queue, flow);
}

/* ---- leaving ---- */

static struct flow *next_flow(const struct queue *queue)
{
    struct flow *flow, *next = TAILQ_FIRST(&queue->flows);
    TAILQ_FOREACH(flow, &queue->flows, link)
    if (flow->turn < next->turn)
        next = flow;
    return next;
}

/* How many of the next job's rows go in, where there is room for so many. Several jobs share a
 * batch rather than one after the other having it. */
static size_t rows_to_take(const struct queue *queue, const struct job *job, size_t room)
{
    enum { SHARES = 8 };
    const size_t share = (queue->batch_rows + SHARES - 1) / SHARES;
    if (queue->whole_jobs)
        return job->rows_waiting <= room ? job->rows_waiting : 0;
    const size_t most = room < share ? room : share;
    return job->rows_waiting < most ? job->rows_waiting : most;
}

/* Returns whether it took any. */
static bool take_rows(struct queue *queue, struct batch *batch, size_t most_rows)
{
    struct flow *flow = next_flow(queue);
    struct job *job = flow_next(flow);
    const size_t room = (queue->whole_jobs ? queue->batch_rows : most_rows) - batch->rows;
    const size_t rows = rows_to_take(queue, job, room);
    if (rows == 0)
        return false;
    batch_add(batch, job, rows);
    flow_take(flow, rows);
    queue->rows -= rows;
    queue->turn = flow->turn;
    flow->turn += rows * WEIGHTS[flow->priority];
    forget_empty(queue, flow);
    return true;
}

struct batch *queue_take(struct queue *queue, size_t most_rows)
{
    if (queue->rows == 0)
        return NULL;
    struct batch *batch = queue->spare;
    queue->spare = batch->next;
    queue->spare_count--;
    batch->rows = batch->segment_count = 0;
    const size_t most = most_rows < queue->batch_rows ? most_rows : queue->batch_rows;
    while (queue->rows > 0 && batch->rows < most && take_rows(queue, batch, most))
        ;
    for (size_t i = 0; i < batch->segment_count; i++) {
        const struct segment *segment = &batch->segments[i];
        batch->spans[i] =
            (struct moed_span){.rows = segment->rows, .intervention = segment->job->intervention};
    }
    return batch;
}

void queue_recycle(struct queue *queue, struct batch *batch)
{
    if (queue->spare_count == MAX_SPARE_BATCHES) {
        batch_free(batch, queue->info);
        return;
    }
    batch->next = queue->spare;
    queue->spare = batch;
    queue->spare_count++;
}

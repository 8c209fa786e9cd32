/* Rows are read straight into the batch in which they are computed, and never move. */
#include "server/compute/queue.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* Batches kept for reuse: one filling, one computing, one ready. Further ones are freed, so that
 * the memory of a burst is given back. */
enum { MAX_SPARE_BATCHES = 3 };

static void batch_free(struct batch *batch, const struct moed_model_info *info)
{
    for (size_t i = 0; batch->inputs && i < info->input_count; i++)
        free(batch->inputs[i]);
    for (size_t i = 0; batch->outputs && i < info->output_count; i++)
        free(batch->outputs[i]);
    free(batch->inputs);
    free(batch->outputs);
    free(batch->segments);
    free(batch->spans);
    free(batch);
}

static void *allocate_rows(const struct queue *queue, const struct moed_tensor_info *tensor,
                           bool *failed)
{
    void *rows = malloc(queue->batch_rows * tensor->elements * MOED_ELEMENT_BYTES);
    *failed |= !rows;
    return rows;
}

static struct batch *batch_new(const struct queue *queue)
{
    const struct moed_model_info *info = queue->info;
    struct batch *batch = xcalloc(1, sizeof *batch);
    bool failed = false;
    batch->inputs = xcalloc(info->input_count, sizeof *batch->inputs);
    for (size_t i = 0; i < info->input_count; i++)
        batch->inputs[i] = allocate_rows(queue, &info->inputs[i], &failed);
    batch->outputs = xcalloc(info->output_count, sizeof *batch->outputs);
    for (size_t i = 0; i < info->output_count; i++)
        batch->outputs[i] = allocate_rows(queue, &info->outputs[i], &failed);
    /* Every segment has at least one row. */
    batch->segments = xcalloc(queue->batch_rows, sizeof *batch->segments);
    batch->spans = xcalloc(queue->batch_rows, sizeof *batch->spans);
    if (failed) {
        batch_free(batch, info);
        return NULL;
    }
    return batch;
}

void queue_init(struct queue *queue, const struct moed_model_info *info, size_t batch_rows,
                size_t max_rows)
{
    *queue = (struct queue){.info = info, .batch_rows = batch_rows, .max_rows = max_rows};
    for (size_t i = 0; i < info->gate_count; i++)
        queue->whole_jobs |= info->gates[i].limited;
}

static void free_list(struct batch *batch, const struct moed_model_info *info)
{
    while (batch) {
        struct batch *next = batch->next;
        batch_free(batch, info);
        batch = next;
    }
}

void queue_close(struct queue *queue)
{
    free_list(queue->head, queue->info);
    free_list(queue->spare, queue->info);
}

/* The batch for the next rows: the last one, or a new one behind it. If a job's rows must stay
 * together, it has room for `rows`. */
static struct batch *open_batch(struct queue *queue, size_t rows, uint64_t now_ns,
                                struct error *err)
{
    size_t needed = queue->whole_jobs ? rows : 1;
    if (queue->tail && queue->batch_rows - queue->tail->rows >= needed)
        return queue->tail;
    struct batch *batch = queue->spare;
    if (batch) {
        queue->spare = batch->next;
        queue->spare_count--;
    } else if (!(batch = batch_new(queue))) {
        error_set(err, ERROR_UNAVAILABLE, "no memory for another batch");
        return NULL;
    }
    batch->next = NULL;
    batch->rows = batch->segment_count = 0;
    batch->opened_ns = now_ns;
    if (queue->tail)
        queue->tail->next = batch;
    else
        queue->head = batch;
    queue->tail = batch;
    return batch;
}

/* Row `row` of input `index`. */
static char *input_row(const struct queue *queue, const struct batch *batch, size_t index,
                       size_t row)
{
    size_t bytes = queue->info->inputs[index].elements * MOED_ELEMENT_BYTES;
    return (char *)batch->inputs[index] + row * bytes;
}

static int read_segment(struct queue *queue, struct batch *batch, struct infer_reader *readers,
                        size_t rows, struct error *err)
{
    for (size_t i = 0; i < queue->info->input_count; i++) {
        void *values = input_row(queue, batch, i, batch->rows);
        if (infer_reader_rows(&readers[i], rows, values, err) != 0)
            return -1;
    }
    return 0;
}

static int push_segments(struct queue *queue, struct job *job, struct infer_reader *readers,
                         uint64_t now_ns, struct error *err)
{
    size_t done = 0;
    while (done < job->request.rows) {
        struct batch *batch = open_batch(queue, job->request.rows - done, now_ns, err);
        if (!batch)
            return -1;
        size_t rows = queue->batch_rows - batch->rows;
        if (rows > job->request.rows - done)
            rows = job->request.rows - done;
        if (read_segment(queue, batch, readers, rows, err) != 0)
            return -1;
        batch->segments[batch->segment_count++] = (struct segment){job, done, rows};
        batch->rows += rows;
        done += rows;
    }
    return 0;
}

/* Removes the job's rows from a batch; the rows behind them move up. */
static void remove_rows(const struct queue *queue, struct batch *batch, const struct job *job)
{
    size_t row = 0, at = 0;
    while (at < batch->segment_count && batch->segments[at].job != job)
        row += batch->segments[at++].rows;
    if (at == batch->segment_count)
        return;
    size_t rows = batch->segments[at].rows, behind = batch->rows - row - rows;
    for (size_t i = 0; i < queue->info->input_count; i++)
        memmove(input_row(queue, batch, i, row), input_row(queue, batch, i, row + rows),
                behind * queue->info->inputs[i].elements * MOED_ELEMENT_BYTES);
    batch->segment_count--;
    memmove(&batch->segments[at], &batch->segments[at + 1],
            (batch->segment_count - at) * sizeof *batch->segments);
    batch->rows -= rows;
}

/* Removes the job from the queue and recycles batches that become empty: a client that sends and
 * hangs up again and again must not pile them up. */
static void remove_job(struct queue *queue, const struct job *job)
{
    struct batch **link = &queue->head;
    queue->tail = NULL;
    while (*link) {
        struct batch *batch = *link;
        remove_rows(queue, batch, job);
        if (batch->rows > 0) {
            queue->tail = batch;
            link = &batch->next;
        } else {
            *link = batch->next;
            queue_recycle(queue, batch);
        }
    }
}

int queue_push(struct queue *queue, struct job *job, uint64_t now_ns, struct error *err)
{
    if (job->request.rows > queue->max_rows - queue->rows)
        return error_set(err, ERROR_OVERLOADED,
                         "the queue is full: %zu rows wait, %zu more would exceed the limit of %zu",
                         queue->rows, job->request.rows, queue->max_rows);
    if (queue->whole_jobs && job->request.rows > queue->batch_rows)
        return error_set(
            err, ERROR_TOO_LARGE,
            "%zu rows, expected at most %zu: the experts of this model have a capacity "
            "per request, so a request must fit one batch",
            job->request.rows, queue->batch_rows);
    struct infer_reader *readers = xcalloc(queue->info->input_count, sizeof *readers);
    for (size_t i = 0; i < queue->info->input_count; i++)
        infer_reader_init(&readers[i], &job->request, i);
    int result = push_segments(queue, job, readers, now_ns, err);
    free(readers);
    if (result != 0) {
        remove_job(queue, job);
        return -1;
    }
    queue->rows += job->request.rows;
    job->rows_waiting = job->request.rows;
    return 0;
}

struct batch *queue_take(struct queue *queue)
{
    struct batch *batch = queue->head;
    if (!batch)
        return NULL;
    queue->head = batch->next;
    if (!queue->head)
        queue->tail = NULL;
    for (size_t i = 0; i < batch->segment_count; i++) {
        const struct segment *segment = &batch->segments[i];
        segment->job->rows_waiting -= segment->rows;
        segment->job->rows_running += segment->rows;
        batch->spans[i] =
            (struct moed_span){.rows = segment->rows, .intervention = segment->job->intervention};
    }
    queue->rows -= batch->rows;
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

void queue_cancel(struct queue *queue, struct job *job)
{
    remove_job(queue, job);
    queue->rows -= job->rows_waiting;
    job->rows_waiting = 0;
}

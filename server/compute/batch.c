/* A batch of rows of several jobs is copied together; one of a single job is used where it lies. */
#include "server/compute/batch.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

void batch_free(struct batch *batch, const struct moed_model_info *info)
{
    for (size_t i = 0; batch->gathered && i < info->input_count; i++)
        free(batch->gathered[i]);
    for (size_t i = 0; batch->outputs && i < info->output_count; i++)
        free(batch->outputs[i]);
    free(batch->inputs);
    free(batch->gathered);
    free(batch->outputs);
    free(batch->segments);
    free(batch->spans);
    free(batch);
}

static void *allocate_rows(size_t rows, const struct moed_tensor_info *tensor, bool *failed)
{
    void *values = malloc(rows * tensor->elements * MOED_ELEMENT_BYTES);
    *failed |= !values;
    return values;
}

struct batch *batch_new(const struct moed_model_info *info, size_t rows, struct error *err)
{
    struct batch *batch = xcalloc(1, sizeof *batch);
    bool failed = false;
    batch->inputs = xcalloc(info->input_count, sizeof *batch->inputs);
    batch->gathered = xcalloc(info->input_count, sizeof *batch->gathered);
    for (size_t i = 0; i < info->input_count; i++)
        batch->gathered[i] = allocate_rows(rows, &info->inputs[i], &failed);
    batch->outputs = xcalloc(info->output_count, sizeof *batch->outputs);
    for (size_t i = 0; i < info->output_count; i++)
        batch->outputs[i] = allocate_rows(rows, &info->outputs[i], &failed);
    /* Every segment has at least one row. */
    batch->segments = xcalloc(rows, sizeof *batch->segments);
    batch->spans = xcalloc(rows, sizeof *batch->spans);
    if (!failed)
        return batch;
    batch_free(batch, info);
    error_set(err, ERROR_UNAVAILABLE, "no memory for another batch");
    return NULL;
}

void batch_add(struct batch *batch, struct job *job, size_t rows)
{
    const bool present =
        job->segment < batch->segment_count && batch->segments[job->segment].job == job;
    if (!present) {
        job->segment = batch->segment_count++;
        batch->segments[job->segment] =
            (struct segment){.job = job, .job_row = job->request.rows - job->rows_waiting};
    }
    batch->segments[job->segment].rows += rows;
    batch->rows += rows;
}

char *batch_job_input(const struct job *job, const struct moed_model_info *info, size_t input)
{
    size_t before = 0;
    for (size_t i = 0; i < input; i++)
        before += info->inputs[i].elements;
    return job->values + job->request.rows * before * MOED_ELEMENT_BYTES;
}

/* Where the rows of a segment lie in its job. */
static const char *segment_rows(const struct segment *segment, const struct moed_model_info *info,
                                size_t input)
{
    return batch_job_input(segment->job, info, input) +
           segment->job_row * info->inputs[input].elements * MOED_ELEMENT_BYTES;
}

void batch_gather(struct batch *batch, const struct moed_model_info *info)
{
    for (size_t input = 0; input < info->input_count; input++) {
        const size_t row_bytes = info->inputs[input].elements * MOED_ELEMENT_BYTES;
        batch->inputs[input] = batch->gathered[input];
        char *to = batch->gathered[input];
        if (batch->segment_count == 1)
            batch->inputs[input] = segment_rows(batch->segments, info, input);
        for (size_t i = 0; batch->segment_count > 1 && i < batch->segment_count; i++) {
            const size_t bytes = batch->segments[i].rows * row_bytes;
            memcpy(to, segment_rows(&batch->segments[i], info, input), bytes);
            to += bytes;
        }
    }
}

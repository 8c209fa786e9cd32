/* The thread turns a long body into binary numbers, so that reading them on the loop costs no more
 * than copying them. */
#include "server/routes/decode.h"

#include <stdlib.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/background.h"
#include "server/models/model.h"

/* A loop scans at least this much in two milliseconds; handing it over costs some hundredths of
 * one.
 */
enum { LONG_BODY_BYTES = 1 << 20 };

struct decoding {
    struct background background;
    struct job *job;
    const struct infer_limits *limits;
    void (*on_decoded)(struct job *job, struct error *err);
    void **numbers; /* [input_count]; NULL: the input is read from the body */
};

static int decode(struct job *job, const struct infer_limits *limits, struct error *err)
{
    const struct exchange *exchange = job->exchange;
    const struct infer_body body = {
        exchange->body ? exchange->body : "", exchange->body_length,
        exchange_header_in(exchange, "Inference-Header-Content-Length")};
    struct infer_limits own = *limits;
    own.max_rows = model_max_request_rows(job->model, own.max_rows);
    return job->protocol->decode(&job->model->signature, &body, &own, &job->request, err);
}

/* Replaces an input's JSON by its numbers. */
static int read_input(struct decoding *decoding, size_t index)
{
    struct error *err = &decoding->background.err;
    struct infer_request *request = &decoding->job->request;
    const struct signature_tensor *tensor = &request->signature->inputs[index];
    struct infer_input *input = &request->inputs[index];
    size_t bytes = request->rows * tensor->elements * sizeof(float); /* int32_t is as long */
    struct infer_reader reader;
    void *numbers = decoding->numbers[index] = malloc(bytes);
    if (!numbers)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu row%s", request->rows,
                         text_s(request->rows));
    infer_reader_init(&reader, request, index);
    if (infer_reader_rows(&reader, request->rows, numbers, err) != 0)
        return -1;
    input->data = numbers;
    input->length = bytes;
    input->binary = true;
    input->datatype = tensor->categories > 0 ? DATATYPE_INT32 : DATATYPE_FP32;
    return 0;
}

static void work(struct background *background)
{
    struct decoding *decoding = (struct decoding *)background;
    struct job *job = decoding->job;
    if (decode(job, decoding->limits, &background->err) != 0)
        return;
    size_t count = job->request.signature->input_count;
    decoding->numbers = xcalloc(count, sizeof *decoding->numbers);
    for (size_t i = 0; i < count; i++)
        if (!job->request.inputs[i].binary && read_input(decoding, i) != 0)
            return;
}

static void end(struct background *background)
{
    struct decoding *decoding = (struct decoding *)background;
    struct job *job = decoding->job;
    size_t count = job->model->signature.input_count;
    decoding->on_decoded(job, &background->err);
    for (size_t i = 0; decoding->numbers && i < count; i++)
        free(decoding->numbers[i]);
    free(decoding->numbers);
    free(decoding);
}

static void decode_on_a_thread(uv_loop_t *loop, struct job *job, const struct infer_limits *limits,
                               void (*on_decoded)(struct job *job, struct error *err))
{
    struct decoding *decoding = xcalloc(1, sizeof *decoding);
    *decoding = (struct decoding){.background = {job->exchange, .work = work, .end = end},
                                  .job = job,
                                  .limits = limits,
                                  .on_decoded = on_decoded};
    background_run(loop, &decoding->background);
}

void decode_job(uv_loop_t *loop, struct job *job, const struct infer_limits *limits,
                void (*on_decoded)(struct job *job, struct error *err))
{
    struct error err = ERROR_INIT;
    if (job->exchange->body_length > LONG_BODY_BYTES) {
        decode_on_a_thread(loop, job, limits, on_decoded);
        return;
    }
    (void)decode(job, limits, &err); /* on_decoded looks at `err` */
    on_decoded(job, &err);
}

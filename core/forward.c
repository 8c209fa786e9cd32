/* The forward pass: inputs are preprocessed, encoded and joined, run through the model's layers,
 * and decoded into the outputs. */
#include <assert.h>
#include <string.h>

#include "core/scratch.h"
#include "core/session.h"

static float per_channel(const double *values, size_t count, size_t channel, float otherwise)
{
    return count == 0 ? otherwise : (float)values[count == 1 ? 0 : channel];
}

static void preprocess(const struct preprocess *preprocess, size_t rows, const float *x, float *y)
{
    size_t channels = preprocess->shape.dims[0];
    size_t plane = moed_shape_elements(&preprocess->shape) / channels;
    for (size_t row = 0; row < rows; row++)
        for (size_t channel = 0; channel < channels; channel++, x += plane, y += plane) {
            float mean = per_channel(preprocess->mean, preprocess->mean_count, channel, 0.0f);
            float std = per_channel(preprocess->std, preprocess->std_count, channel, 1.0f);
            for (size_t i = 0; i < plane; i++)
                y[i] = (x[i] * preprocess->scale - mean) / std;
        }
}

static void convert_integers(const int32_t *integers, size_t count, float *y)
{
    for (size_t i = 0; i < count; i++)
        y[i] = (float)integers[i];
}

/* The lengths of input `index`, if it has them, for layers that run on what it gives. */
static void set_lengths(struct run *run, const struct moed_model *model, size_t index,
                        const void *const inputs[])
{
    const struct input *input = &model->inputs[index];
    run->lengths = input->has_lengths ? inputs[input->length] : NULL;
    run->positions = model->input_info[index].shape.dims[0];
}

/* The encoded values of input `index`, which the model's layers read: `raw` itself, or scratch. */
static const float *encode(const struct moed_model *model, const struct run *run, size_t index,
                           size_t rows, const void *const inputs[])
{
    const struct input *input = &model->inputs[index];
    const void *raw = inputs[index];
    const struct chain *chain = &input->chain;
    const float *x = raw; /* still integers only if the first layer reads those */
    float *prepared = run_floats(run, input->prepared, rows);
    if (input->preprocess.present) {
        preprocess(&input->preprocess, rows, x, prepared);
        x = prepared;
    }
    if (input->integers_become_f32) {
        convert_integers(raw, rows * model->input_info[index].elements, prepared);
        x = prepared;
    }
    if (chain->count) {
        float *y = run_floats(run, input->encoded, rows);
        struct run inner = run_part(run, input->layers, rows);
        set_lengths(&inner, model, index, inputs);
        chain_forward(chain, &inner, rows, x, y);
        x = y;
    }
    return x;
}

/* All inputs, encoded and joined: side by side in each row. */
static const float *encode_all(const struct moed_model *model, const struct run *run, size_t rows,
                               const void *const inputs[])
{
    if (model->data_count == 1)
        return encode(model, run, model->data, rows, inputs);
    size_t width = moed_shape_elements(&model->joined);
    float *joined = run_floats(run, model->joined_place, rows), *column = joined;
    for (size_t i = 0; i < model->input_count; i++) {
        size_t elements = moed_shape_elements(&model->inputs[i].out);
        if (model->inputs[i].is_length)
            continue;
        const float *part = encode(model, run, i, rows, inputs);
        for (size_t row = 0; row < rows; row++)
            memcpy(column + row * width, part + row * elements, elements * sizeof *part);
        column += elements;
    }
    return joined;
}

/* Moves the wanted rows of x together, to its beginning; returns their number. */
static size_t choose_rows(const struct moed_model *model, const bool *wanted, size_t rows, float *x)
{
    size_t width = model->chain.out_elements, count = 0;
    for (size_t row = 0; row < rows; row++)
        if (wanted[row])
            memmove(x + count++ * width, x + row * width, width * sizeof *x);
    return count;
}

static void decode_all(const struct moed_model *model, const struct run *run, size_t rows,
                       const float *x, float *const outputs[])
{
    for (size_t i = 0; i < model->output_count; i++) {
        const struct chain *chain = &model->outputs[i].chain;
        if (chain->count)
            chain_forward(chain, run, rows, x, outputs[i]);
        else
            memcpy(outputs[i], x, rows * model->chain.out_elements * sizeof *x);
    }
}

/* Outputs do not depend on padding either: there they are 0. */
static void clear_padding(const struct moed_model *model, const struct run *run, size_t rows,
                          float *const outputs[])
{
    for (size_t i = 0; i < model->output_count; i++) {
        size_t elements = model->output_info[i].elements;
        for (size_t row = 0; model->outputs[i].padded && row < rows; row++) {
            size_t kept = elements / run->positions * run_length(run, row);
            memset(outputs[i] + row * elements + kept, 0, (elements - kept) * sizeof *outputs[i]);
        }
    }
}

/* Whether the span continues its session and is what the model expects. */
static bool is_next(const struct moed_model *model, const struct moed_span *span)
{
    const struct moed_session *session = span->session;
    if (!session)
        return span->position == 0 && model->position_bytes == 0;
    return session->pages->model == model && span->position == session->length &&
           span->rows <= session->writable - session->length;
}

static size_t count_rows(const struct moed_model *model, const struct moed_batch *batch)
{
    size_t rows = 0;
    for (size_t i = 0; i < batch->span_count; i++) {
        assert(is_next(model, &batch->spans[i]));
        rows += batch->spans[i].rows;
    }
    return rows;
}

static void advance_sessions(const struct moed_batch *batch)
{
    size_t row = 0;
    for (size_t i = 0; i < batch->span_count; row += batch->spans[i++].rows)
        if (batch->spans[i].session)
            session_advance(batch->spans[i].session, &batch->spans[i], batch->inputs[0], row);
}

void moed_forward(const struct moed_model *model, struct moed_scratch *scratch,
                  struct moed_team *team, const struct moed_batch *batch)
{
    const struct chain *chain = &model->chain;
    bool direct = model_output_is_direct(model) && !batch->wanted;
    size_t rows = count_rows(model, batch), wanted = rows;
    assert(!model->headers_only && (!batch->wanted || model->context > 0));
    assert(rows >= 1 && rows <= scratch->max_rows && team_size(team) <= scratch->threads);
    struct run run = scratch_run(scratch, team);
    run.spans = batch->spans;
    run.span_count = batch->span_count;
    const float *x = encode_all(model, &run, rows, batch->inputs);
    float *y = direct ? batch->outputs[0] : run_floats(&run, model->given, rows);
    struct run inner = run_part(&run, model->layers, rows);
    if (model->data_count == 1)
        set_lengths(&inner, model, model->data, batch->inputs);
    chain_forward(chain, &inner, rows, x, y);
    if (batch->wanted)
        wanted = choose_rows(model, batch->wanted, rows, y);
    if (!direct && wanted > 0)
        decode_all(model, &inner, wanted, y, batch->outputs);
    clear_padding(model, &inner, rows, batch->outputs);
    advance_sessions(batch);
}

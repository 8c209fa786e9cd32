/* Running a model: the scratch of one forward pass at a time, and the pass itself. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/model.h"

/* Activations of one scratch: a config whose shapes multiply to more is refused, not allocated. */
static const size_t MOED_SCRATCH_LIMIT = (size_t)4 << 30;

/* Cache lines, and the widest vectors. */
enum { ALIGNMENT = 64 };

struct moed_scratch {
    const struct moed_model *model;
    size_t max_rows, threads;
    float *arena;      /* max_rows * model_scratch_per_row */
    float *workspaces; /* [threads, workspace_stride] */
    size_t workspace_stride;
    struct routing *routing; /* [gate_count of the model] */
    size_t routing_count;
    struct dispatch *dispatches; /* [moe_count of the model] */
    size_t dispatch_count;
};

static float *allocate(size_t floats, struct error *err)
{
    size_t bytes = (floats * sizeof(float) + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    float *memory = aligned_alloc(ALIGNMENT, bytes);
    if (!memory)
        error_set(err, ERROR_INTERNAL, "no memory for %zu bytes of activations", bytes);
    return memory;
}

/* A worker's part of a layer's working memory, the largest of all layers. */
static size_t workspace_of(const struct moed_model *model)
{
    size_t most = model->chain.workspace;
    for (size_t i = 0; i < model->input_count; i++)
        most = max_size(most, model->inputs[i].chain.workspace);
    for (size_t i = 0; i < model->output_count; i++)
        most = max_size(most, model->outputs[i].chain.workspace);
    return most;
}

static size_t routing_bytes_per_row(const struct moed_model *model)
{
    size_t bytes = 0;
    for (size_t i = 0; i < model->gate_count; i++)
        bytes += model->gates[i].routed_per_row * model->gates[i].top_k *
                 (sizeof(int32_t) + sizeof(float));
    for (size_t i = 0; i < model->moe_count; i++)
        bytes += model->moe[i].items_per_row * model->moe[i].slots *
                 (2 * sizeof(uint32_t) + sizeof(struct expert_task));
    return bytes;
}

static int check_size(const struct moed_model *model, size_t max_rows, unsigned threads,
                      struct error *err)
{
    size_t bytes;
    const size_t workspace = workspace_of(model) * sizeof(float);
    const size_t per_row = model->info.scratch_bytes_per_row + routing_bytes_per_row(model);
    if (__builtin_mul_overflow(per_row, max_rows, &bytes) ||
        __builtin_add_overflow(bytes, threads * workspace, &bytes) || bytes > MOED_SCRATCH_LIMIT)
        return error_set(
            err, ERROR_INVALID,
            "%zu rows of %zu bytes of activations and %u threads of %zu bytes exceed %zu "
            "bytes; use smaller batches or fewer threads",
            max_rows, per_row, threads, workspace, MOED_SCRATCH_LIMIT);
    return 0;
}

static int allocate_routing(struct moed_scratch *scratch, struct error *err)
{
    const struct moed_model *model = scratch->model;
    scratch->routing = xcalloc(model->gate_count, sizeof *scratch->routing);
    for (size_t i = 0; i < model->gate_count; i++) {
        scratch->routing_count++;
        if (routing_init(&scratch->routing[i], &model->gates[i],
                         scratch->max_rows * model->gates[i].routed_per_row, err) != 0)
            return -1;
    }
    scratch->dispatches = xcalloc(model->moe_count, sizeof *scratch->dispatches);
    for (size_t i = 0; i < model->moe_count; i++) {
        scratch->dispatch_count++;
        if (dispatch_init(&scratch->dispatches[i], &model->moe[i],
                          scratch->max_rows * model->moe[i].items_per_row, err) != 0)
            return -1;
    }
    return 0;
}

static int allocate_all(struct moed_scratch *scratch, struct error *err)
{
    const struct moed_model *model = scratch->model;
    const size_t workspace = workspace_of(model);
    scratch->workspace_stride = (workspace + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    scratch->arena = allocate(scratch->max_rows * model_scratch_per_row(model), err);
    scratch->workspaces = allocate(scratch->threads * scratch->workspace_stride, err);
    if (!scratch->arena || !scratch->workspaces)
        return -1;
    return allocate_routing(scratch, err);
}

struct moed_scratch *moed_scratch_new(const struct moed_model *model, size_t max_rows,
                                      unsigned threads, struct error *err)
{
    if (check_size(model, max_rows, threads, err) != 0)
        return NULL;
    struct moed_scratch *scratch = xcalloc(1, sizeof *scratch);
    *scratch = (struct moed_scratch){.model = model, .max_rows = max_rows, .threads = threads};
    if (allocate_all(scratch, err) != 0) {
        moed_scratch_free(scratch);
        return NULL;
    }
    return scratch;
}

void moed_scratch_free(struct moed_scratch *scratch)
{
    if (!scratch)
        return;
    for (size_t i = 0; i < scratch->routing_count; i++)
        routing_close(&scratch->routing[i]);
    for (size_t i = 0; i < scratch->dispatch_count; i++)
        dispatch_close(&scratch->dispatches[i]);
    free(scratch->routing);
    free(scratch->dispatches);
    free(scratch->workspaces);
    free(scratch->arena);
    free(scratch);
}

float *run_workspace(const struct run *run)
{
    return run->scratch->workspaces + run->worker * run->scratch->workspace_stride;
}

struct routing *run_routing(const struct run *run, size_t index)
{
    return &run->scratch->routing[index];
}

struct dispatch *run_dispatch(const struct run *run, size_t index)
{
    return &run->scratch->dispatches[index];
}

static float per_channel(const double *values, size_t count, size_t channel, float otherwise)
{
    return count == 0 ? otherwise : (float)values[count == 1 ? 0 : channel];
}

static void preprocess(const struct preprocess *preprocess, size_t rows, const float *x, float *y)
{
    const size_t channels = preprocess->shape.dims[0];
    const size_t plane = moed_shape_elements(&preprocess->shape) / channels;
    for (size_t row = 0; row < rows; row++)
        for (size_t channel = 0; channel < channels; channel++, x += plane, y += plane) {
            const float mean = per_channel(preprocess->mean, preprocess->mean_count, channel, 0.0f);
            const float std = per_channel(preprocess->std, preprocess->std_count, channel, 1.0f);
            for (size_t i = 0; i < plane; i++)
                y[i] = (x[i] * preprocess->scale - mean) / std;
        }
}

/* The next `floats` of the arena. */
static float *take(struct run *run, size_t floats)
{
    float *taken = run->arena;
    run->arena += floats;
    return taken;
}

/* What input `index` gives to the model's layers: x itself, or memory of the arena. */
static const float *encode(const struct moed_model *model, struct run *run, size_t index,
                           size_t rows, const float *x)
{
    const struct input *input = &model->inputs[index];
    const struct chain *chain = &input->chain;
    if (input->preprocess.present) {
        float *y = take(run, rows * model->input_info[index].elements);
        preprocess(&input->preprocess, rows, x, y);
        x = y;
    }
    if (chain->count) {
        float *y = take(run, rows * chain->out_elements);
        chain_forward(chain, 0, chain->count, run, rows, x, y);
        x = y;
    }
    return x;
}

static size_t encode_scratch(const struct moed_model *model, size_t index)
{
    const struct input *input = &model->inputs[index];
    size_t floats = input->preprocess.present ? model->input_info[index].elements : 0;
    if (input->chain.count)
        floats += input->chain.out_elements + input->chain.scratch_per_row;
    return floats;
}

/* All inputs, each row's side by side. */
static const float *encode_all(const struct moed_model *model, struct run *run, size_t rows,
                               const float *const inputs[])
{
    if (model->input_count == 1)
        return encode(model, run, 0, rows, inputs[0]);
    const size_t width = moed_shape_elements(&model->joined);
    float *joined = take(run, rows * width), *column = joined;
    for (size_t i = 0; i < model->input_count; i++) {
        struct run inner = *run;
        const size_t elements = moed_shape_elements(&model->inputs[i].out);
        const float *part = encode(model, &inner, i, rows, inputs[i]);
        for (size_t row = 0; row < rows; row++)
            memcpy(column + row * width, part + row * elements, elements * sizeof *part);
        column += elements;
    }
    return joined;
}

/* Whether the only output is what the layers give, which can then be written in its place. */
static bool output_is_direct(const struct moed_model *model)
{
    return model->output_count == 1 && model->outputs[0].chain.count == 0;
}

/* In the order that moed_forward_requests takes it. */
size_t model_scratch_per_row(const struct moed_model *model)
{
    size_t encoding = 0, kept = 0, running = model->chain.scratch_per_row;
    for (size_t i = 0; i < model->input_count; i++)
        encoding = max_size(encoding, encode_scratch(model, i));
    if (model->input_count == 1)
        kept = encoding;
    else
        kept = moed_shape_elements(&model->joined);
    if (!output_is_direct(model))
        kept += model->chain.out_elements;
    for (size_t i = 0; i < model->output_count; i++)
        running = max_size(running, model->outputs[i].chain.scratch_per_row);
    return kept + max_size(encoding, running);
}

static void decode_all(const struct moed_model *model, const struct run *run, size_t rows,
                       const float *x, float *const outputs[])
{
    for (size_t i = 0; i < model->output_count; i++) {
        const struct chain *chain = &model->outputs[i].chain;
        if (chain->count)
            chain_forward(chain, 0, chain->count, run, rows, x, outputs[i]);
        else
            memcpy(outputs[i], x, rows * model->chain.out_elements * sizeof *x);
    }
}

void moed_forward_requests(const struct moed_model *model, struct moed_scratch *scratch,
                           struct moed_team *team, const size_t *request_rows, size_t request_count,
                           const float *const inputs[], float *const outputs[])
{
    size_t rows = 0;
    for (size_t i = 0; i < request_count; i++)
        rows += request_rows[i];
    assert(rows >= 1 && rows <= scratch->max_rows && team_size(team) <= scratch->threads);
    struct run run = {.scratch = scratch,
                      .team = team,
                      .request_rows = request_rows,
                      .request_count = request_count,
                      .arena = scratch->arena};
    const struct chain *chain = &model->chain;
    const bool direct = output_is_direct(model);
    const float *x = encode_all(model, &run, rows, inputs);
    float *y = direct ? outputs[0] : take(&run, rows * chain->out_elements);
    chain_forward(chain, 0, chain->count, &run, rows, x, y);
    if (!direct)
        decode_all(model, &run, rows, y, outputs);
}

void moed_forward(const struct moed_model *model, struct moed_scratch *scratch,
                  struct moed_team *team, size_t rows, const float *const inputs[],
                  float *const outputs[])
{
    moed_forward_requests(model, scratch, team, &rows, 1, inputs, outputs);
}

const struct moed_routing *moed_routing(const struct moed_scratch *scratch, size_t index)
{
    struct routing *routing = &scratch->routing[index];
    routing->view = (struct moed_routing){.items = routing->items,
                                          .experts = routing->experts,
                                          .top_k = routing->top_k,
                                          .expert = routing->expert,
                                          .weight = routing->weight,
                                          .dropped = routing->dropped,
                                          .selected = routing->selected,
                                          .top1 = routing->top1,
                                          .weight_sum = routing->weight_sum,
                                          .probability_sum = routing->probability_sum,
                                          .entropy_sum = routing->entropy_sum};
    return &routing->view;
}

/* Running a model: the scratch of one forward pass at a time, and the pass itself. */
#include "model.h"

#include <assert.h>
#include <stdlib.h>

/* Activations of one scratch: a config whose shapes multiply to more is refused, not allocated. */
static const size_t MOED_SCRATCH_LIMIT = (size_t)4 << 30;

/* Cache lines, and the widest vectors. */
enum { ALIGNMENT = 64 };

struct moed_scratch {
    const struct moed_model *model;
    size_t max_rows, threads;
    float *input;      /* [max_rows, input] preprocessed; NULL when there is no preprocessing */
    float *arena;      /* max_rows * chain.scratch_per_row */
    float *workspaces; /* [threads, workspace_stride] */
    size_t workspace_stride;
    struct routing *routing; /* [moe_count] */
    size_t routing_count;
};

static float *allocate(size_t floats, struct error *err)
{
    size_t bytes = (floats * sizeof(float) + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    float *memory = aligned_alloc(ALIGNMENT, bytes);
    if (!memory)
        error_set(err, ERROR_INTERNAL, "no memory for %zu bytes of activations", bytes);
    return memory;
}

static int check_size(const struct moed_model *model, size_t max_rows, unsigned threads,
                      struct error *err)
{
    size_t bytes;
    const size_t workspace = model->chain.workspace * sizeof(float);
    size_t per_row = model->info.scratch_bytes_per_row;
    for (size_t i = 0; i < model->moe_count; i++)
        per_row += model->moe[i].top_k * (4 * sizeof(uint32_t) + sizeof(struct expert_task));
    if (__builtin_mul_overflow(per_row, max_rows, &bytes) ||
        __builtin_add_overflow(bytes, threads * workspace, &bytes) || bytes > MOED_SCRATCH_LIMIT)
        return error_set(
            err, ERROR_INVALID,
            "%zu rows of %zu bytes of activations and %u threads of %zu bytes exceed %zu "
            "bytes; use smaller batches or fewer threads",
            max_rows, per_row, threads, workspace, MOED_SCRATCH_LIMIT);
    return 0;
}

static int allocate_all(struct moed_scratch *scratch, struct error *err)
{
    const struct moed_model *model = scratch->model;
    const struct chain *chain = &model->chain;
    scratch->workspace_stride = (chain->workspace + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    scratch->arena = allocate(scratch->max_rows * chain->scratch_per_row, err);
    scratch->workspaces = allocate(scratch->threads * scratch->workspace_stride, err);
    if (!scratch->arena || !scratch->workspaces)
        return -1;
    if (model->preprocess.present) {
        scratch->input = allocate(scratch->max_rows * model->input.elements, err);
        if (!scratch->input)
            return -1;
    }
    scratch->routing = xcalloc(model->moe_count, sizeof *scratch->routing);
    for (size_t i = 0; i < model->moe_count; i++) {
        scratch->routing_count++;
        if (routing_init(&scratch->routing[i], &model->moe[i], scratch->max_rows, err) != 0)
            return -1;
    }
    return 0;
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
    free(scratch->routing);
    free(scratch->workspaces);
    free(scratch->arena);
    free(scratch->input);
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

void moed_forward(const struct moed_model *model, struct moed_scratch *scratch,
                  struct moed_team *team, size_t rows, const float *const inputs[],
                  float *const outputs[])
{
    assert(rows >= 1 && rows <= scratch->max_rows && team_size(team) <= scratch->threads);
    const struct run run = {.scratch = scratch, .team = team, .arena = scratch->arena};
    const float *x = inputs[0];
    if (model->preprocess.present) {
        preprocess(&model->preprocess, rows, x, scratch->input);
        x = scratch->input;
    }
    chain_forward(&model->chain, 0, model->chain.count, &run, rows, x, outputs[0]);
}

const struct moed_routing *moed_routing(const struct moed_scratch *scratch, size_t moe_layer)
{
    struct routing *routing = &scratch->routing[moe_layer];
    routing->view = (struct moed_routing){.items = routing->items,
                                          .experts = routing->experts,
                                          .top_k = routing->top_k,
                                          .expert = routing->expert,
                                          .weight = routing->weight,
                                          .selected = routing->selected,
                                          .top1 = routing->top1,
                                          .weight_sum = routing->weight_sum,
                                          .probability_sum = routing->probability_sum,
                                          .entropy_sum = routing->entropy_sum};
    return &routing->view;
}

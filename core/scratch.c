/* Allocates everything that a forward pass writes to, so that the pass itself never allocates. */
#include "core/scratch.h"

#include <stdlib.h>

#include "core/memory.h"
#include "core/text.h"

/* Bounds the activations of one scratch: a config whose shapes multiply to more is refused, not
 * allocated. */
static const size_t MOED_SCRATCH_LIMIT = (size_t)4 << 30;

/* Bytes of a cache line and of the widest vector. */
enum { ALIGNMENT = 64 };

static float *allocate(struct moed_scratch *scratch, size_t floats, struct error *err)
{
    size_t bytes = (floats * sizeof(float) + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    float *memory = aligned_alloc(ALIGNMENT, bytes);
    scratch->bytes += bytes;
    if (!memory)
        error_set(err, ERROR_UNAVAILABLE, "no memory for %zu bytes of activations", bytes);
    return memory;
}

static size_t routing_bytes_per_row(const struct moed_model *model, bool distributions)
{
    size_t bytes = 0;
    for (size_t i = 0; i < model->gate_count; i++) {
        const struct moed_gate_info *gate = &model->gates[i];
        bytes += gate->items_per_row * gate->top_k * (2 * sizeof(int32_t) + sizeof(float));
        if (distributions)
            bytes += gate->items_per_row * (gate->experts + 2) * sizeof(float);
    }
    for (size_t i = 0; i < model->moe_count; i++)
        bytes += model->moe[i].items_per_row * model->moe[i].slots *
                 (2 * sizeof(uint32_t) + sizeof(struct expert_task));
    return bytes;
}

static int check_size(const struct moed_model *model, const struct moed_scratch_options *options,
                      struct error *err)
{
    size_t bytes;
    size_t workspace = model->plan.workspace * sizeof(float);
    size_t per_row =
        model->info.scratch_bytes_per_row + routing_bytes_per_row(model, options->distributions);
    if (__builtin_mul_overflow(per_row, options->max_rows, &bytes) ||
        __builtin_add_overflow(bytes, options->threads * workspace, &bytes) ||
        bytes > MOED_SCRATCH_LIMIT)
        return error_set(
            err, ERROR_INVALID,
            "%zu row%s of %zu bytes of activations and %u thread%s of %zu bytes exceed %zu "
            "bytes; use smaller batches or fewer threads",
            options->max_rows, text_s(options->max_rows), per_row, options->threads,
            text_s(options->threads), workspace, MOED_SCRATCH_LIMIT);
    return 0;
}

static int allocate_routing(struct moed_scratch *scratch, bool distributions, struct error *err)
{
    const struct moed_model *model = scratch->model;
    scratch->routing = xcalloc(model->gate_count, sizeof *scratch->routing);
    for (size_t i = 0; i < model->gate_count; i++) {
        scratch->routing_count++;
        if (routing_init(&scratch->routing[i], &model->gates[i],
                         scratch->max_rows * model->gates[i].items_per_row, distributions,
                         err) != 0)
            return -1;
        scratch->bytes += scratch->routing[i].bytes;
    }
    scratch->dispatches = xcalloc(model->moe_count, sizeof *scratch->dispatches);
    for (size_t i = 0; i < model->moe_count; i++) {
        scratch->dispatch_count++;
        if (dispatch_init(&scratch->dispatches[i], &model->moe[i],
                          scratch->max_rows * model->moe[i].items_per_row, distributions, err) != 0)
            return -1;
        scratch->bytes += scratch->dispatches[i].bytes;
    }
    return 0;
}

static int allocate_all(struct moed_scratch *scratch, bool distributions, struct error *err)
{
    const struct moed_model *model = scratch->model;
    size_t workspace = model->plan.workspace;
    scratch->workspace_stride = (workspace + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    scratch->arena = allocate(scratch, scratch->max_rows * model->plan.most, err);
    scratch->workspaces = allocate(scratch, scratch->threads * scratch->workspace_stride, err);
    if (!scratch->arena || !scratch->workspaces)
        return -1;
    return allocate_routing(scratch, distributions, err);
}

struct moed_scratch *moed_scratch_new(const struct moed_model *model,
                                      const struct moed_scratch_options *options, struct error *err)
{
    if (check_size(model, options, err) != 0)
        return NULL;
    struct moed_scratch *scratch = xcalloc(1, sizeof *scratch);
    scratch->model = model;
    scratch->max_rows = options->max_rows;
    scratch->threads = options->threads;
    if (allocate_all(scratch, options->distributions, err) != 0) {
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

uint64_t moed_scratch_bytes(const struct moed_scratch *scratch)
{
    return scratch->bytes;
}

struct run scratch_run(struct moed_scratch *scratch, struct moed_team *team)
{
    return (struct run){.team = team,
                        .arena = scratch->arena,
                        .workspaces = scratch->workspaces,
                        .workspace_stride = scratch->workspace_stride,
                        .routing = scratch->routing,
                        .dispatches = scratch->dispatches};
}

const struct moed_routing *moed_routing(const struct moed_scratch *scratch, size_t index)
{
    return &scratch->routing[index].decisions;
}

/* One served model version; see served.h. */
#include "server/served.h"

#include <stdlib.h>

static struct signature_tensor signature_tensor(const struct moed_tensor_info *info)
{
    return (struct signature_tensor){.name = info->name,
                                     .rank = info->shape.rank,
                                     .dims = info->shape.dims,
                                     .elements = info->elements,
                                     .categories = info->categories,
                                     .label_count = info->label_count,
                                     .labels = info->labels};
}

static void fill_signature(struct served *served)
{
    const struct moed_model_info *info = served->info;
    served->tensors = xcalloc(info->input_count + info->output_count, sizeof *served->tensors);
    served->gates = xcalloc(info->gate_count, sizeof *served->gates);
    for (size_t i = 0; i < info->input_count; i++)
        served->tensors[i] = signature_tensor(&info->inputs[i]);
    for (size_t i = 0; i < info->output_count; i++)
        served->tensors[info->input_count + i] = signature_tensor(&info->outputs[i]);
    for (size_t i = 0; i < info->gate_count; i++)
        served->gates[i] =
            (struct signature_gate){info->gates[i].name, info->gates[i].experts,
                                    info->gates[i].top_k, info->gates[i].items_per_row};
    served->signature = (struct signature){
        .model = served->name,
        .version = served->version,
        .description = info->description,
        .input_count = info->input_count,
        .output_count = info->output_count,
        .gate_count = info->gate_count,
        .inputs = served->tensors,
        .outputs = served->tensors + info->input_count,
        .gates = served->gates,
    };
}

/* Serves `model` under the name and version of its repository. */
static struct served *serve_model(struct moed_model *model, bool owns_model, const char *name,
                                  const char *version, const struct served_options *options,
                                  struct error *err)
{
    struct served *served = xcalloc(1, sizeof *served);
    served->name = xstrdup(name);
    served->version = xstrdup(version);
    served->version_number = strtoull(version, NULL, 10);
    served->model = model;
    served->owns_model = owns_model;
    served->info = moed_model_info(model);
    fill_signature(served);
    queue_init(&served->queue, served->info, options->max_batch_rows, options->max_queue_rows);
    stats_init(&served->stats, served->info);
    const struct moed_scratch_options scratch = {
        .max_rows = options->max_batch_rows, .threads = options->threads, .distributions = true};
    served->scratch = moed_scratch_new(model, &scratch, err);
    if (!served->scratch) {
        served_free(served);
        return NULL;
    }
    return served;
}

struct served *served_new(const char *directory, const char *name, const char *version,
                          const struct served_options *options, struct error *err)
{
    const struct moed_load_options load = {options->int8 ? MOED_WEIGHTS_INT8 : MOED_WEIGHTS_STORED};
    struct moed_model *model = moed_model_load(directory, &load, err);
    if (!model)
        return NULL;
    struct served *served = serve_model(model, true, name, version, options, err);
    if (!served)
        error_prefix(err, "%s", directory);
    return served;
}

struct served *served_share(const struct served *first, const struct served_options *options,
                            struct error *err)
{
    return serve_model(first->model, false, first->name, first->version, options, err);
}

void served_forward(const struct served *served, struct moed_team *team, const struct batch *batch)
{
    const struct moed_batch rows = {.spans = batch->spans,
                                    .span_count = batch->segment_count,
                                    .inputs = (const void *const *)batch->inputs,
                                    .outputs = batch->outputs};
    moed_forward(served->model, served->scratch, team, &rows);
}

void served_free(struct served *served)
{
    if (!served)
        return;
    stats_close(&served->stats);
    queue_close(&served->queue);
    moed_scratch_free(served->scratch);
    if (served->owns_model)
        moed_model_free(served->model);
    free(served->tensors);
    free(served->gates);
    free(served->version);
    free(served->name);
    free(served);
}

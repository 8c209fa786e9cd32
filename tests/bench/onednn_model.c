/* The checkpoint tells which of the two kinds of model it is. */
#include "onednn_model.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "core/load/safetensors.h"
#include "onednn_conv.h"
#include "onednn_moe.h"
#include "openblas_conv.h"

struct onednn_model {
    const struct moed_model_info *info;
    struct safetensors *weights;
    struct onednn_moe *moe; /* NULL: a convolution */
    bool *seen;             /* [max_rows + 1] row counts that the MoE layer was sized for */
    struct onednn_conv *conv;
    struct conv_steps steps;
};

static void must(int result, const struct error *err)
{
    if (result == 0)
        return;
    fprintf(stderr, "bench: %s\n", err->text);
    exit(EXIT_FAILURE);
}

struct onednn_model *onednn_model_open(const char *directory, const struct moed_model_info *info,
                                       size_t max_rows)
{
    struct error err = ERROR_INIT;
    struct onednn_model *model = bench_memory(sizeof *model);
    *model =
        (struct onednn_model){.info = info, .weights = safetensors_open(directory, false, &err)};
    must(model->weights ? 0 : -1, &err);
    model->moe = onednn_moe_new(info, model->weights, max_rows);
    if (model->moe) {
        model->seen = calloc(max_rows + 1, sizeof *model->seen);
        must(model->seen ? 0 : error_set(&err, ERROR_INTERNAL, "no memory"), &err);
        return model;
    }
    return conv_read_steps(directory, model->weights, &model->steps) ? model : NULL;
}

bool onednn_model_size(struct onednn_model *model, size_t rows)
{
    if (model->moe) {
        const bool first = !model->seen[rows];
        model->seen[rows] = true;
        return first;
    }
    onednn_conv_free(model->conv);
    model->conv = onednn_conv_new(model->info, model->weights, &model->steps, rows);
    return true;
}

void onednn_model_forward(struct onednn_model *model, size_t rows, const float *x, float *y)
{
    if (model->conv)
        onednn_conv_input(model->conv, x);
    onednn_model_run(model, rows, x, y);
    if (model->conv)
        onednn_conv_output(model->conv, y);
}

void onednn_model_run(struct onednn_model *model, size_t rows, const float *x, float *y)
{
    if (model->conv)
        onednn_conv_run(model->conv);
    else
        onednn_moe_forward(model->moe, rows, x, y);
}

/* A model: config.json and its tensors put together, and what may be known of the result.
 * Owns the mapping, the layers and every string that moed_model_info hands out. */
#include "model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_preprocess(struct preprocess *preprocess, struct config_node *input,
                           struct error *err)
{
    const double one = 1.0;
    const struct moed_shape *shape = &preprocess->shape;
    struct config_node node;
    preprocess->scale = 1.0f;
    if (!config_has(input, "preprocess"))
        return 0;
    preprocess->present = true;
    double scale;
    if (config_object(input, "preprocess", &node, err) != 0 ||
        config_real(&node, "scale", &one, &scale, err) != 0)
        return -1;
    preprocess->scale = (float)scale;
    if (config_has(&node, "mean") &&
        config_reals(&node, "mean", &preprocess->mean, &preprocess->mean_count, err) != 0)
        return -1;
    if (config_has(&node, "std") &&
        config_reals(&node, "std", &preprocess->std, &preprocess->std_count, err) != 0)
        return -1;
    const size_t channels = shape->dims[0];
    if (preprocess->mean_count > 1 && preprocess->mean_count != channels)
        return config_error(&node, "mean", err, "expected 1 or %zu numbers, one per channel",
                            channels);
    if (preprocess->std_count > 1 && preprocess->std_count != channels)
        return config_error(&node, "std", err, "expected 1 or %zu numbers, one per channel",
                            channels);
    for (size_t i = 0; i < preprocess->std_count; i++)
        if ((float)preprocess->std[i] == 0)
            return config_error(&node, "std", err, "entry %zu is zero", i);
    return config_done(&node, err);
}

static int read_input(struct moed_model *model, struct config_node *root, struct error *err)
{
    struct config_node node;
    const char *name;
    char text[SHAPE_TEXT_BYTES];
    struct moed_tensor_info *input = &model->input;
    if (config_object(root, "input", &node, err) != 0 ||
        config_text(&node, "name", "input", &name, err) != 0 ||
        config_shape(&node, "shape", &input->shape, err) != 0)
        return -1;
    size_t elements = 1;
    for (size_t i = 0; i < input->shape.rank; i++)
        if (__builtin_mul_overflow(elements, input->shape.dims[i], &elements) ||
            elements > MAX_ROW_ELEMENTS)
            return config_error(&node, "shape", err, "%s exceeds %d elements",
                                shape_text(&input->shape, text), MAX_ROW_ELEMENTS);
    input->elements = elements;
    input->name = model->input_name = xstrdup(name);
    model->preprocess.shape = input->shape;
    if (read_preprocess(&model->preprocess, &node, err) != 0)
        return -1;
    return config_done(&node, err);
}

static int read_labels(struct moed_model *model, struct config_node *node, struct error *err)
{
    const struct moed_shape *out = &model->chain.out;
    const size_t classes = out->rank ? out->dims[out->rank - 1] : 1;
    const char **labels;
    size_t count;
    if (!config_has(node, "labels"))
        return 0;
    if (config_texts(node, "labels", &labels, &count, err) != 0)
        return -1;
    model->labels = calloc_checked(count, sizeof *model->labels, err);
    for (; model->labels && model->label_count < count; model->label_count++)
        model->labels[model->label_count] = xstrdup(labels[model->label_count]);
    free(labels);
    if (!model->labels)
        return -1;
    if (count != classes)
        return config_error(node, "labels", err, "%zu labels for %zu classes", count, classes);
    return 0;
}

static int read_output(struct moed_model *model, struct config_node *root, struct error *err)
{
    struct config_node node;
    const char *name = "output";
    if (config_has(root, "output")) {
        if (config_object(root, "output", &node, err) != 0 ||
            config_text(&node, "name", name, &name, err) != 0 ||
            read_labels(model, &node, err) != 0 || config_done(&node, err) != 0)
            return -1;
    }
    model->output_name = xstrdup(name);
    model->output =
        (struct moed_tensor_info){model->output_name, model->chain.out, model->chain.out_elements};
    return 0;
}

static const struct moed_moe_info *find_moe(const struct moed_model *model, const char *name)
{
    for (size_t i = 0; i < model->moe_count; i++)
        if (strcmp(model->moe[i].name, name) == 0)
            return &model->moe[i];
    return NULL;
}

/* The shares seen at training time. Nothing in the engine needs them; they are checked, so that a
 * front end may trust them. */
static int read_reference(struct config_node *references, const struct moed_moe_info *moe,
                          struct error *err)
{
    struct config_node node;
    double *shares;
    size_t count;
    int64_t rows;
    if (config_object(references, moe->name, &node, err) != 0 ||
        config_integer(&node, "rows", CONFIG_REQUIRED, 1, INT64_MAX, &rows, err) != 0 ||
        config_reals(&node, "share", &shares, &count, err) != 0)
        return -1;
    free(shares);
    if (count != moe->experts)
        return config_error(&node, "share", err, "%zu shares for %zu experts", count, moe->experts);
    return config_done(&node, err);
}

static int read_references(struct moed_model *model, struct config_node *root, struct error *err)
{
    struct config_node node;
    if (!config_has(root, "routing_reference"))
        return 0;
    if (config_object(root, "routing_reference", &node, err) != 0)
        return -1;
    for (const char *name = NULL; (name = config_next_key(&node, name));) {
        const struct moed_moe_info *moe = find_moe(model, name);
        if (!moe)
            return config_error(&node, NULL, err, "no MoE layer is called '%.60s'", name);
        if (read_reference(&node, moe, err) != 0)
            return -1;
    }
    return 0;
}

static int read_header(struct moed_model *model, struct config_node *root, struct error *err)
{
    static const char *const types[] = {"moed", NULL};
    const char *description;
    int type;
    int64_t version;
    if (config_choice(root, "model_type", types, -1, &type, err) != 0 ||
        config_integer(root, "format_version", CONFIG_REQUIRED, 1, 1, &version, err) != 0 ||
        config_text(root, "description", "", &description, err) != 0)
        return -1;
    model->description = xstrdup(description);
    return 0;
}

static int build_layers(struct moed_model *model, struct config_node *root, struct error *err)
{
    size_t layers_left = MAX_LAYERS;
    struct build build = {.tensors = model->tensors, .layers_left = &layers_left};
    int result = chain_build(&model->chain, &build, root, "layers", &model->input.shape, err);
    model->moe = build.moe;
    model->moe_count = build.moe_count;
    if (result != 0)
        return -1;
    const struct tensor *unused = safetensors_unused(model->tensors);
    if (unused)
        return error_set(err, ERROR_INVALID, "tensor '%s' is used by no layer", unused->name);
    return 0;
}

static void fill_info(struct moed_model *model)
{
    const struct chain *chain = &model->chain;
    const size_t input_copy = model->preprocess.present ? model->input.elements : 0;
    model->info = (struct moed_model_info){
        .description = model->description,
        .input_count = 1,
        .inputs = &model->input,
        .output_count = 1,
        .outputs = &model->output,
        .label_count = model->label_count,
        .labels = (const char *const *)model->labels,
        .moe_count = model->moe_count,
        .moe = model->moe,
        .parameters = chain->parameters,
        .active_parameters = chain->active_parameters,
        .macs_per_row = chain->macs,
        .weight_bytes = chain->weight_bytes,
        .scratch_bytes_per_row = (chain->scratch_per_row + input_copy) * sizeof(float),
    };
}

static int read_config(struct moed_model *model, struct config_node *root, struct error *err)
{
    if (read_header(model, root, err) != 0 || read_input(model, root, err) != 0 ||
        build_layers(model, root, err) != 0 || read_output(model, root, err) != 0 ||
        read_references(model, root, err) != 0)
        return -1;
    return config_done(root, err);
}

struct moed_model *moed_model_load(const char *directory, struct error *err)
{
    struct error local = ERROR_INIT;
    struct config_node root;
    char path[PATH_MAX];
    int result = -1;
    struct moed_model *model = xcalloc(1, sizeof *model);
    err = err ? err : &local;
    if (snprintf(path, sizeof path, "%s/config.json", directory) >= (int)sizeof path)
        error_set(err, ERROR_INVALID, "path too long");
    else if (config_open(&root, path, err) == 0) {
        model->tensors = safetensors_open(directory, err);
        if (model->tensors)
            result = read_config(model, &root, err);
        config_close(&root);
    }
    if (result != 0) {
        error_prefix(err, "%s", directory);
        moed_model_free(model);
        return NULL;
    }
    fill_info(model);
    return model;
}

void moed_model_free(struct moed_model *model)
{
    if (!model)
        return;
    chain_close(&model->chain);
    safetensors_free(model->tensors);
    for (size_t i = 0; i < model->label_count; i++)
        free(model->labels[i]);
    free(model->labels);
    free(model->preprocess.mean);
    free(model->preprocess.std);
    free(model->moe);
    free(model->description);
    free(model->input_name);
    free(model->output_name);
    free(model);
}

const struct moed_model_info *moed_model_info(const struct moed_model *model)
{
    return &model->info;
}

struct visit {
    const struct moed_model *model;
    void (*call)(const struct moed_layer_info *layer, void *context);
    void *context;
    size_t moe_seen;
};

static void visit_chain(struct visit *visit, const struct chain *chain, const char *role, int depth)
{
    for (size_t i = 0; i < chain->count; i++) {
        const struct layer *layer = &chain->layers[i];
        struct moed_layer_info info = {.depth = depth,
                                       .role = i == 0 ? role : "",
                                       .op = layer->op->name,
                                       .name = layer->name,
                                       .in = layer->in,
                                       .out = layer->out,
                                       .parameters = layer->parameters};
        if (layer->op == &op_moe)
            info.moe = &visit->model->moe[visit->moe_seen++];
        visit->call(&info, visit->context);
        const struct chain *child;
        const char *child_role;
        for (size_t j = 0; layer->op->child && (child = layer->op->child(layer, j, &child_role));
             j++)
            visit_chain(visit, child, child_role, depth + 1);
    }
}

void moed_model_visit(const struct moed_model *model,
                      void (*visit)(const struct moed_layer_info *layer, void *context),
                      void *context)
{
    struct visit walk = {.model = model, .call = visit, .context = context};
    visit_chain(&walk, &model->chain, "", 0);
}

/* Builds a model from config.json and its tensors. A model owns the mapping, the layers and every
 * string that moed_model_info() returns. */
#include "core/model.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/load/file_map.h"
#include "core/memory.h"
#include "core/reference.h"
#include "core/text.h"

static int read_labels(struct output *output, struct moed_tensor_info *tensor,
                       struct config_node *node, struct error *err)
{
    const struct moed_shape *shape = &tensor->shape;
    size_t classes = shape->rank ? shape->dims[shape->rank - 1] : 1;
    const char **labels;
    size_t count;
    if (!config_has(node, "labels"))
        return 0;
    if (config_texts(node, "labels", &labels, &count, err) != 0)
        return -1;
    output->labels = calloc_checked(count, sizeof *output->labels, err);
    for (; output->labels && output->label_count < count; output->label_count++)
        output->labels[output->label_count] = xstrdup(labels[output->label_count]);
    free(labels);
    if (!output->labels)
        return -1;
    if (count != classes)
        return config_error(node, "labels", err, "%zu label%s for %zu %s", count, text_s(count),
                            classes, classes == 1 ? "class" : "classes");
    tensor->label_count = count;
    tensor->labels = (const char *const *)output->labels;
    return 0;
}

/* Positions of rows of different length in the model's layers and outputs; 0: there are none. */
static size_t positions_of(const struct moed_model *model)
{
    const struct input *input = &model->inputs[model->data];
    return model->data_count == 1 && input->has_lengths
               ? model->input_info[model->data].shape.dims[0]
               : 0;
}

static int read_output(struct moed_model *model, const struct scope *scope,
                       struct config_node *node, bool listed, struct error *err)
{
    size_t index = model->output_count++;
    struct moed_tensor_info *tensor = &model->output_info[index];
    struct output *output = &model->outputs[index];
    struct scope inner = *scope;
    inner.no_moe = true;
    inner.padded = model->chain.padded;
    inner.positions = positions_of(model);
    /* Nothing behind an output's own layers evens out what they get wrong. */
    precision_refine(&inner.precision);
    if (model_name_tensor(model->output_info, index, node, listed ? NULL : "output", err) != 0)
        return -1;
    if (listed && config_has(node, "layers") &&
        chain_build(&output->chain, &inner, node, "layers", &model->chain.out, err) != 0)
        return -1;
    tensor->shape = output->chain.count ? output->chain.out : model->chain.out;
    output->padded = output->chain.count ? output->chain.padded : model->chain.padded;
    tensor->elements = moed_shape_elements(&tensor->shape);
    if (read_labels(output, tensor, node, err) != 0)
        return -1;
    return config_done(node, err);
}

/* The default output. */
static void add_plain_output(struct moed_model *model)
{
    model->output_count = 1;
    model->outputs[0].padded = model->chain.padded;
    model->output_info[0] = (struct moed_tensor_info){.name = xstrdup("output"),
                                                      .shape = model->chain.out,
                                                      .elements = model->chain.out_elements};
}

static int read_outputs(struct moed_model *model, const struct scope *scope,
                        struct config_node *root, struct error *err)
{
    struct config_items items = {
        .owner = "a model", .one = "output", .many = "outputs", .most = MAX_TENSORS};
    struct config_node node;
    if (config_since(root, 2, scope->loading->format, KEYS("outputs"), err) != 0 ||
        config_items(&items, root, err) != 0)
        return -1;
    model->output_info = xcalloc(items.count, sizeof *model->output_info);
    model->outputs = xcalloc(items.count, sizeof *model->outputs);
    if (!items.listed && !config_has(root, "output")) {
        add_plain_output(model);
        return 0;
    }
    for (size_t i = 0; i < items.count; i++)
        if (config_items_at(&items, root, i, &node, err) != 0 ||
            read_output(model, scope, &node, items.listed, err) != 0)
            return -1;
    return 0;
}

/* Far beyond what any published model reads. */
enum { MAX_CONTEXT = 1 << 24 };

static int read_header(struct moed_model *model, struct loading *loading, struct config_node *root,
                       struct error *err)
{
    static const char *const types[] = {"moed", NULL};
    const char *description;
    int type;
    int64_t version, context;
    if (config_choice(root, "model_type", types, -1, &type, err) != 0 ||
        config_integer(root, "format_version", CONFIG_REQUIRED, within(1, 3), &version, err) != 0 ||
        config_text(root, "description", "", &description, err) != 0)
        return -1;
    loading->format = (int)version;
    if (config_has(root, "context") &&
        (config_since(root, 3, loading->format, KEYS("context"), err) != 0 ||
         config_integer(root, "context", CONFIG_REQUIRED, within(1, MAX_CONTEXT), &context, err) !=
             0))
        return -1;
    model->context = loading->context = config_has(root, "context") ? (size_t)context : 0;
    model->description = xstrdup(description);
    return 0;
}

static int build_layers(struct moed_model *model, const struct scope *scope,
                        struct config_node *root, struct error *err)
{
    struct scope inner = *scope;
    inner.positions = positions_of(model);
    inner.padded = model->data_count == 1 && model->inputs[model->data].padded;
    int result = chain_build(&model->chain, &inner, root, "layers", &model->joined, err);
    model->gates = scope->loading->gates;
    model->gate_count = scope->loading->gate_count;
    model->moe = scope->loading->moe;
    model->moe_count = scope->loading->moe_count;
    return result;
}

static int check_all_used(const struct moed_model *model, struct error *err)
{
    const struct views *views = model->family.views;
    const struct tensor *unused = safetensors_unused(model->tensors);
    unused = unused || !views ? unused : views_unused(views);
    if (unused)
        return tensor_error(unused, err, ERROR_INVALID, " is used by no layer");
    return 0;
}

static void plan_input(struct moed_model *model, struct input *input, size_t elements)
{
    if (input->preprocess.present || input->integers_become_f32)
        input->prepared = plan_floats(&model->plan, elements);
    if (input->chain.count) {
        input->encoded = plan_floats(&model->plan, input->chain.out_elements);
        input->layers = plan_passing_part(&model->plan, &input->chain.plan, 1);
    }
}

bool model_output_is_direct(const struct moed_model *model)
{
    return model->output_count == 1 && model->outputs[0].chain.count == 0;
}

/* Plans the scratch of moed_forward()'s steps. Several inputs are joined, each right after it is
 * encoded. */
static void plan_forward(struct moed_model *model)
{
    struct plan *plan = &model->plan;
    bool joins = model->data_count > 1;
    if (joins)
        model->joined_place = plan_floats(plan, moed_shape_elements(&model->joined));
    size_t encoding = plan->used;
    for (size_t i = 0; i < model->input_count; i++) {
        plan_input(model, &model->inputs[i], model->input_info[i].elements);
        if (joins)
            plan_release(plan, encoding);
    }
    if (!model_output_is_direct(model) || model->context)
        model->given = plan_floats(plan, model->chain.out_elements);
    model->layers = plan_passing_part(plan, &model->chain.plan, 1);
    for (size_t i = 0; i < model->output_count; i++)
        plan_passing_part(plan, &model->outputs[i].chain.plan, 1);
}

static void fill_info(struct moed_model *model, bool copied)
{
    struct moed_model_info *info = &model->info;
    struct cost cost = model->chain.cost;
    for (size_t i = 0; i < model->input_count; i++)
        cost_add(&cost, &model->inputs[i].chain.cost);
    for (size_t i = 0; i < model->output_count; i++)
        cost_add(&cost, &model->outputs[i].chain.cost);
    *info = (struct moed_model_info){
        .description = model->description,
        .family = model->family.name,
        .ignored = (const char *const *)model->family.ignored,
        .ignored_count = model->family.ignored_count,
        .input_count = model->input_count,
        .inputs = model->input_info,
        .output_count = model->output_count,
        .outputs = model->output_info,
        .gate_count = model->gate_count,
        .gates = model->gates,
        .parameters = cost.parameters,
        .active_parameters = cost.active_parameters,
        .shared_bytes = cost.shared_bytes,
        .macs_per_row = cost.macs,
        .weight_bytes = cost.weight_bytes,
        .mapped_bytes = copied ? 0 : cost.mapped_bytes,
        .scratch_bytes_per_row = model->plan.most * sizeof(float),
        .sequence = model->context > 0,
        .context = model->context,
        .position_bytes = model->position_bytes,
        .kind_count = model->kind_count,
    };
    memcpy(info->kinds, model->kinds, sizeof info->kinds);
}

static int read_config(struct moed_model *model, struct config_node *root,
                       const struct moed_load_options *options, struct error *err)
{
    struct loading loading = {.tensors = model->tensors,
                              .kv_f32 = options && options->kv == MOED_KV_F32,
                              .views = model->family.views,
                              .kind_count = 1,
                              .layers_left = MAX_LAYERS,
                              .bytes_left = MAX_UNSTORED_BYTES};
    static const unsigned bits[] = {[MOED_WEIGHTS_INT8] = 8, [MOED_WEIGHTS_INT4] = 4};
    struct scope scope = {.loading = &loading, .precision.store = &model->weights};
    if (options) {
        scope.precision.bits = bits[options->weights];
        scope.precision.inputs = options->activations;
        scope.precision.sizes_only = loading.headers_only = options->headers_only;
    }
    if (read_header(model, &loading, root, err) != 0 ||
        model_read_inputs(model, &scope, root, err) != 0 ||
        build_layers(model, &scope, root, err) != 0 ||
        read_outputs(model, &scope, root, err) != 0 || check_all_used(model, err) != 0 ||
        references_read(model->gates, model->gate_count, root, err) != 0)
        return -1;
    if (loading.sees_ahead && loading.position_bytes > 0)
        return config_error(
            root, "layers", err,
            "one layer sees later positions of a sequence, and another keeps memory "
            "of earlier ones: a sequence is given at once, or part by part");
    model->position_bytes = loading.position_bytes;
    model->kind_count = loading.kind_count;
    memcpy(model->kinds, loading.kinds, sizeof model->kinds);
    return config_done(root, err);
}

/* A published config is translated first; an error in the translation is one of this program. */
static int read_any_config(struct moed_model *model, struct config_node *root,
                           const struct moed_load_options *options, struct error *err)
{
    struct family *family = &model->family;
    if (!family_is_published(root))
        return read_config(model, root, options, err);
    if (family_translate(family, root, model->tensors, err) != 0)
        return -1;
    int result = read_config(model, &family->moed, options, err);
    if (result != 0)
        error_prefix(err, "translated from model_type \"%s\"", family->name);
    else
        result = references_read(model->gates, model->gate_count, root, err);
    family_close_config(family);
    return result;
}

struct moed_model *moed_model_load(const char *directory, const struct moed_load_options *options,
                                   struct error *err)
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
        bool copies = options && options->copy && !options->headers_only;
        model->tensors = safetensors_open(directory, copies, err);
        if (model->tensors)
            result = read_any_config(model, &root, options, err);
        config_close(&root);
    }
    if (result != 0) {
        error_in(err, directory);
        moed_model_free(model);
        return NULL;
    }
    plan_forward(model);
    fill_info(model, options && options->copy);
    model->headers_only = options && options->headers_only;
    return model;
}

static void free_outputs(struct moed_model *model)
{
    for (size_t i = 0; i < model->output_count; i++) {
        struct output *output = &model->outputs[i];
        chain_close(&output->chain);
        for (size_t label = 0; label < output->label_count; label++)
            free(output->labels[label]);
        free(output->labels);
        free((char *)model->output_info[i].name);
    }
    free(model->outputs);
    free(model->output_info);
}

void moed_model_free(struct moed_model *model)
{
    if (!model)
        return;
    chain_close(&model->chain);
    model_free_inputs(model);
    free_outputs(model);
    family_close(&model->family);
    panels_store_close(&model->weights);
    safetensors_free(model->tensors);
    for (size_t i = 0; i < model->gate_count; i++) {
        free((char *)model->gates[i].name);
        reference_free(model->gates[i].reference);
    }
    free(model->gates);
    free(model->moe);
    free(model->description);
    free(model);
}

int moed_survive_truncation(struct error *err)
{
    return file_map_survive(err);
}

bool moed_model_is_damaged(const struct moed_model *model)
{
    return safetensors_are_damaged(model->tensors);
}

const struct moed_model_info *moed_model_info(const struct moed_model *model)
{
    return &model->info;
}

void moed_keep_spare_memory(bool keep)
{
    panels_keep_spare(keep);
}

bool moed_has_spare_memory(void)
{
    return panels_have_spare();
}

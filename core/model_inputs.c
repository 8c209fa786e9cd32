/* The inputs of a model: their shapes, preprocessing, categories, lengths and own layers, and how
 * they enter the model's layers. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/model.h"
#include "core/text.h"

static int read_preprocess(struct preprocess *preprocess, struct config_node *input,
                           struct error *err)
{
    double one = 1.0;
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
    size_t channels = shape->dims[0];
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

int model_name_tensor(struct moed_tensor_info *tensors, size_t index, struct config_node *node,
                      const char *otherwise, struct error *err)
{
    const char *name;
    if (config_text(node, "name", otherwise, &name, err) != 0)
        return -1;
    tensors[index].name = xstrdup(name);
    for (size_t i = 0; i < index; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return config_error(node, "name", err, "two are called '%.60s'", name);
    return 0;
}

/* A row of a listed input may be a single category: a token. */
static int read_shape(struct moed_tensor_info *tensor, struct config_node *node, bool token,
                      struct error *err)
{
    char text[SHAPE_TEXT_BYTES];
    if (config_shape(node, "shape", token ? 0 : 1, &tensor->shape, err) != 0)
        return -1;
    if (!shape_count(&tensor->shape, &tensor->elements))
        return config_error(node, "shape", err, "%s exceeds %d elements",
                            shape_text(&tensor->shape, text), MAX_ROW_ELEMENTS);
    return 0;
}

/* Categories that enter arithmetic become f32, which holds every integer up to 2^24. */
enum { MAX_COMPUTED_CATEGORIES = 1 << 24 };

/* Categories become f32 unless the first layer reads integers. */
static int check_integers(struct input *input, const struct moed_tensor_info *tensor,
                          struct config_node *node, struct error *err)
{
    const struct chain *chain = &input->chain;
    input->integers_become_f32 =
        tensor->categories && !(chain->count && chain->layers[0].op->reads_integers);
    if (input->integers_become_f32 && tensor->categories > MAX_COMPUTED_CATEGORIES)
        return config_error(
            node, "categories", err,
            "expected at most %d without an embedding: f32 holds no larger integers",
            MAX_COMPUTED_CATEGORIES);
    return 0;
}

/* Longer than any word of a vocabulary. */
enum { MAX_WORD_BYTES = 256 };

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Refuses words of which two are equal. */
static int check_words(const char *const *words, size_t count, struct config_node *node,
                       struct error *err)
{
    const char **sorted = calloc_checked(count, sizeof *sorted, err);
    if (!sorted)
        return -1;
    int result = 0;
    memcpy(sorted, words, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_words);
    for (size_t i = 0; i < count && result == 0; i++) {
        if (strlen(sorted[i]) > MAX_WORD_BYTES)
            result = config_error(node, "words", err, "a word has more than %d bytes: '%.40s...'",
                                  MAX_WORD_BYTES, sorted[i]);
        else if (i > 0 && strcmp(sorted[i - 1], sorted[i]) == 0)
            result = config_error(node, "words", err, "'%.60s' is there twice", sorted[i]);
    }
    free(sorted);
    return result;
}

/* "words": what the categories are called. */
static int read_words(struct input *input, struct moed_tensor_info *tensor,
                      struct config_node *node, struct error *err)
{
    const char **words;
    size_t count;
    if (!config_has(node, "words"))
        return 0;
    if (config_texts(node, "words", &words, &count, err) != 0)
        return -1;
    input->words = calloc_checked(count, sizeof *input->words, err);
    for (; input->words && input->word_count < count; input->word_count++)
        input->words[input->word_count] = xstrdup(words[input->word_count]);
    free(words);
    if (!input->words)
        return -1;
    if (tensor->categories == 0 || count != tensor->categories)
        return config_error(node, "words", err, "%zu word%s for %zu %s", count, text_s(count),
                            tensor->categories,
                            tensor->categories == 1 ? "category" : "categories");
    tensor->words = (const char *const *)input->words;
    return check_words(tensor->words, count, node, err);
}

/* "unknown" and "missing": what stands for values that the model has not seen, or not got. */
static int read_substitutes(struct moed_tensor_info *tensor, struct config_node *node,
                            struct error *err)
{
    int64_t most = (int64_t)tensor->categories - 1;
    tensor->unknown = -1;
    if (config_has(node, "unknown") && tensor->categories == 0)
        return config_error(node, "unknown", err, "goes with \"categories\" only");
    if (config_integer(node, "unknown", -1, within(0, most), &tensor->unknown, err) != 0)
        return -1;
    tensor->has_missing = config_has(node, "missing");
    if (!tensor->has_missing)
        return 0;
    int64_t category = 0;
    if (tensor->categories == 0)
        return config_real(node, "missing", NULL, &tensor->missing, err);
    if (config_integer(node, "missing", CONFIG_REQUIRED, within(0, most), &category, err) != 0)
        return -1;
    tensor->missing = (double)category;
    return 0;
}

static int read_values(struct input *input, struct moed_tensor_info *tensor,
                       const struct scope *scope, struct config_node *node, struct error *err)
{
    if (config_since(node, 3, scope->loading->format, KEYS("words", "unknown", "missing"), err) !=
            0 ||
        read_words(input, tensor, node, err) != 0)
        return -1;
    return read_substitutes(tensor, node, err);
}

/* Keys that only an entry of "inputs" has. */
static int read_listed_input(struct input *input, struct moed_tensor_info *tensor,
                             const struct scope *scope, struct config_node *node, struct error *err)
{
    int64_t categories;
    if (config_since(node, 3, scope->loading->format, KEYS("length"), err) != 0 ||
        (config_has(node, "length") &&
         config_text(node, "length", NULL, &input->length_name, err) != 0))
        return -1;
    input->has_lengths = input->padded = input->length_name != NULL;
    if (config_integer(node, "categories", 0, within(1, INT32_MAX), &categories, err) != 0)
        return -1;
    if (categories && input->preprocess.present)
        return config_error(node, "preprocess", err, "categories are not quantities");
    tensor->categories = (size_t)categories;
    if (read_values(input, tensor, scope, node, err) != 0)
        return -1;
    if (!config_has(node, "layers"))
        return check_integers(input, tensor, node, err);
    struct scope inner = *scope;
    inner.no_moe = true;
    inner.categories = tensor->categories;
    inner.padded = input->padded;
    inner.positions = input->padded ? tensor->shape.dims[0] : 0;
    if (chain_build(&input->chain, &inner, node, "layers", &tensor->shape, err) != 0)
        return -1;
    input->out = input->chain.out;
    input->padded = input->chain.padded;
    return check_integers(input, tensor, node, err);
}

static int read_input(struct moed_model *model, const struct scope *scope, struct config_node *node,
                      bool listed, struct error *err)
{
    size_t index = model->input_count++;
    struct moed_tensor_info *tensor = &model->input_info[index];
    struct input *input = &model->inputs[index];
    bool token = listed && scope->loading->format >= 3 && config_has(node, "categories") &&
                 !config_has(node, "length");
    if (model_name_tensor(model->input_info, index, node, listed ? NULL : "input", err) != 0 ||
        read_shape(tensor, node, token, err) != 0)
        return -1;
    input->preprocess.shape = input->out = tensor->shape;
    tensor->unknown = -1;
    if (read_preprocess(&input->preprocess, node, err) != 0)
        return -1;
    if (listed && read_listed_input(input, tensor, scope, node, err) != 0)
        return -1;
    return config_done(node, err);
}

/* The input that an input's "length" names: one integer a row, from 0 to its entries. */
static int link_length(struct moed_model *model, size_t index, struct config_node *node,
                       struct error *err)
{
    struct input *input = &model->inputs[index];
    size_t entries = model->input_info[index].shape.dims[0];
    for (size_t i = 0; i < model->input_count; i++) {
        struct input *other = &model->inputs[i];
        const struct moed_tensor_info *info = &model->input_info[i];
        if (strcmp(info->name, input->length_name) != 0)
            continue;
        if (info->elements != 1 || info->categories < 2 || info->categories > entries + 1 ||
            other->chain.count || other->length_name)
            return config_error(
                node, "length", err,
                "'%.60s' must be one integer from 0 to %zu: of shape [1], with 2 to "
                "%zu \"categories\", without \"layers\" and \"length\"",
                input->length_name, entries, entries + 1);
        input->length = i;
        other->is_length = true;
        model->input_info[index].length = info->name;
        return 0;
    }
    return config_error(node, "length", err, "no input is called '%.60s'", input->length_name);
}

static int link_lengths(struct moed_model *model, const struct config_items *items,
                        struct config_node *root, struct error *err)
{
    struct config_node node;
    for (size_t i = 0; i < model->input_count; i++)
        if (model->inputs[i].length_name && (config_items_at(items, root, i, &node, err) != 0 ||
                                             link_length(model, i, &node, err) != 0))
            return -1;
    for (size_t i = model->input_count; i > 0; i--)
        if (!model->inputs[i - 1].is_length) {
            model->data_count++;
            model->data = i - 1;
        }
    return 0;
}

/* One input enters the layers as it is; several are joined side by side into one vector. */
static int join_inputs(struct moed_model *model, struct config_node *root, struct error *err)
{
    model->joined = model->inputs[model->data].out;
    if (model->data_count == 1)
        return 0;
    size_t elements = 0;
    for (size_t i = 0; i < model->input_count; i++) {
        const struct input *input = &model->inputs[i];
        if (input->padded)
            return config_error(root, "inputs", err,
                                "'%.60s' would be joined with its padding: let its \"layers\" "
                                "reduce the first axis, for example by mean",
                                model->input_info[i].name);
        elements += input->is_length ? 0 : moed_shape_elements(&input->out);
    }
    if (elements > MAX_ROW_ELEMENTS)
        return config_error(root, "inputs", err, "join to %zu elements, more than %d", elements,
                            MAX_ROW_ELEMENTS);
    model->joined = (struct moed_shape){.rank = 1, .dims = {elements}};
    return 0;
}

int model_read_inputs(struct moed_model *model, const struct scope *scope, struct config_node *root,
                      struct error *err)
{
    struct config_items items = {
        .owner = "a model", .one = "input", .many = "inputs", .most = MAX_TENSORS};
    struct config_node node;
    if (config_since(root, 2, scope->loading->format, KEYS("inputs"), err) != 0 ||
        config_items(&items, root, err) != 0)
        return -1;
    model->input_info = xcalloc(items.count, sizeof *model->input_info);
    model->inputs = xcalloc(items.count, sizeof *model->inputs);
    for (size_t i = 0; i < items.count; i++)
        if (config_items_at(&items, root, i, &node, err) != 0 ||
            read_input(model, scope, &node, items.listed, err) != 0)
            return -1;
    if (link_lengths(model, &items, root, err) != 0)
        return -1;
    return join_inputs(model, root, err);
}

void model_free_inputs(struct moed_model *model)
{
    for (size_t i = 0; i < model->input_count; i++) {
        chain_close(&model->inputs[i].chain);
        free(model->inputs[i].preprocess.mean);
        free(model->inputs[i].preprocess.std);
        for (size_t word = 0; word < model->inputs[i].word_count; word++)
            free(model->inputs[i].words[word]);
        free(model->inputs[i].words);
        free((char *)model->input_info[i].name);
    }
    free(model->inputs);
    free(model->input_info);
}

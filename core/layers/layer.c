/* Building and running lists of layers; see layer.h. */
#include "core/layers/layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct layer_op *const OPS[] = {
    &op_linear,      &op_conv1d,
    &op_conv2d,      &op_batch_norm,
    &op_layer_norm,  &op_rms_norm,
    &op_max_pool2d,  &op_avg_pool2d,
    &op_flatten,     &op_reshape,
    &op_sum,         &op_mean,
    &op_relu,        &op_gelu,
    &op_silu,        &op_tanh,
    &op_sigmoid,     &op_softmax,
    &op_cube,        &op_scale,
    &op_residual,    &op_moe,
    &op_select,      &op_transpose,
    &op_embedding,   &op_position_embedding,
    &op_class_token, &op_glu,
    &op_attention,
};

size_t moed_shape_elements(const struct moed_shape *shape)
{
    size_t elements = 1;
    for (size_t i = 0; i < shape->rank; i++)
        elements *= shape->dims[i];
    return elements;
}

const char *shape_text(const struct moed_shape *shape, char text[SHAPE_TEXT_BYTES])
{
    size_t used = (size_t)snprintf(text, SHAPE_TEXT_BYTES, "[");
    for (size_t i = 0; i < shape->rank && used < SHAPE_TEXT_BYTES; i++)
        used += (size_t)snprintf(text + used, SHAPE_TEXT_BYTES - used, "%s%zu", i ? ", " : "",
                                 shape->dims[i]);
    if (used < SHAPE_TEXT_BYTES)
        snprintf(text + used, SHAPE_TEXT_BYTES - used, "]");
    return text;
}

bool shape_equal(const struct moed_shape *a, const struct moed_shape *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0;
}

int layer_set_out(struct layer *layer, const struct config_node *node,
                  const struct moed_shape *shape, struct error *err)
{
    size_t elements = 1;
    char text[SHAPE_TEXT_BYTES];
    for (size_t i = 0; i < shape->rank; i++)
        if (__builtin_mul_overflow(elements, shape->dims[i], &elements) ||
            elements > MAX_ROW_ELEMENTS)
            return config_error(node, NULL, err, "a row of shape %s exceeds %d elements",
                                shape_text(shape, text), MAX_ROW_ELEMENTS);
    layer->out = *shape;
    layer->out_elements = elements;
    return 0;
}

int format_2_key(const struct build *build, struct config_node *node, const char *key,
                 struct error *err)
{
    if (build->format < 2 && config_has(node, key))
        return config_error(node, key, err, "needs \"format_version\": 2");
    return 0;
}

bool name_is_valid(const char *name)
{
    const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    return strlen(name) <= 64 && name[strspn(name, allowed)] == '\0';
}

static const struct layer_op *find_op(const char *name)
{
    for (size_t i = 0; i < sizeof OPS / sizeof *OPS; i++)
        if (strcmp(OPS[i]->name, name) == 0)
            return OPS[i];
    return NULL;
}

static void layer_close(struct layer *layer)
{
    if (layer->op && layer->op->free)
        layer->op->free(layer);
    free(layer->state);
    free(layer->name);
}

static int layer_build(struct layer *layer, struct build *build, struct config_node *node,
                       const struct moed_shape *in, struct error *err)
{
    const char *op, *name;
    if (config_text(node, "op", NULL, &op, err) != 0 ||
        config_text(node, "name", "", &name, err) != 0)
        return -1;
    if (!name_is_valid(name))
        return config_error(node, "name", err,
                            "expected at most 64 letters, digits, '_', '-' or '.'");
    layer->op = find_op(op);
    if (!layer->op)
        return config_error(node, "op", err, "unknown op '%.40s'", op);
    if (layer->op->format > build->format)
        return config_error(node, "op", err, "'%s' needs \"format_version\": %d", op,
                            layer->op->format);
    layer->name = xstrdup(name);
    layer->in = *in;
    layer->in_elements = moed_shape_elements(in);
    if (layer->op->build(layer, build, node, err) != 0)
        return -1;
    return config_done(node, err);
}

static void chain_add(struct chain *chain, const struct layer *layer)
{
    chain->out = layer->out;
    chain->out_elements = layer->out_elements;
    chain->max_elements = max_size(chain->max_elements, layer->out_elements);
    chain->collective |= layer->collective;
    chain->scratch_per_row = max_size(chain->scratch_per_row, layer->scratch_per_row);
    chain->workspace = max_size(chain->workspace, layer->workspace);
    chain->parameters += layer->parameters;
    chain->active_parameters += layer->active_parameters;
    chain->macs += layer->macs;
    chain->weight_bytes += layer->weight_bytes;
}

int chain_build(struct chain *chain, struct build *build, struct config_node *node, const char *key,
                const struct moed_shape *in, struct error *err)
{
    size_t count;
    *chain = (struct chain){.in = *in, .out = *in};
    chain->in_elements = chain->out_elements = chain->max_elements = moed_shape_elements(in);
    if (build->depth == MAX_LAYER_DEPTH)
        return config_error(node, key, err, "layers are nested more than %d deep", MAX_LAYER_DEPTH);
    if (config_list(node, key, &count, err) != 0)
        return -1;
    if (count > *build->layers_left)
        return config_error(node, key, err, "the model has more than %d layers", MAX_LAYERS);
    *build->layers_left -= count;
    chain->layers = calloc_checked(count, sizeof *chain->layers, err);
    if (!chain->layers)
        return -1;
    build->depth++;
    for (; chain->count < count; chain->count++) {
        struct config_node item;
        struct layer *layer = &chain->layers[chain->count];
        if (config_item(node, key, chain->count, &item, err) != 0 ||
            layer_build(layer, build, &item, &chain->out, err) != 0) {
            layer_close(layer);
            chain_close(chain);
            return -1;
        }
        chain_add(chain, layer);
        build->categories = 0; /* what came out of a layer is a quantity */
    }
    build->depth--;
    /* Two buffers between the layers of a task, and two more between segments. */
    chain->task_scratch_per_row = chain->scratch_per_row + 2 * chain->max_elements;
    chain->scratch_per_row = chain->task_scratch_per_row + 2 * chain->max_elements;
    return 0;
}

void chain_close(struct chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        layer_close(&chain->layers[i]);
    free(chain->layers);
    *chain = (struct chain){0};
}

size_t chain_find(const struct chain *chain, const char *name)
{
    for (size_t i = 0; i < chain->count; i++)
        if (*name && strcmp(chain->layers[i].name, name) == 0)
            return i;
    return chain->count;
}

/* Layers [from, to), none of them collective, over a run of rows: the body of every task. Layers
 * alternate between two buffers; those that can, work in place. */
static void run_layers(const struct chain *chain, size_t from, size_t to, const struct run *run,
                       size_t rows, const float *x, float *y)
{
    float *buffers[2] = {run->arena, run->arena + rows * chain->max_elements};
    struct run inner = *run;
    inner.team = NULL;
    inner.arena = run->arena + 2 * rows * chain->max_elements;
    const float *current = x;
    for (size_t i = from; i < to; i++) {
        const struct layer *layer = &chain->layers[i];
        float *target = current == buffers[0] ? buffers[1] : buffers[0];
        if (i + 1 == to)
            target = y;
        else if (layer->op->in_place && current != x)
            target = (float *)current;
        layer->op->forward(layer, &inner, rows, current, target);
        current = target;
    }
}

/* A segment of a chain shared out by rows. */
struct segment {
    const struct chain *chain;
    size_t from, to;
    const struct run *run;
    size_t rows, rows_per_task;
    const float *x;
    float *y;
};

static void run_segment_task(void *context, size_t index, unsigned worker)
{
    const struct segment *segment = context;
    const struct chain *chain = segment->chain;
    size_t first = index * segment->rows_per_task;
    size_t rows = segment->rows - first;
    if (rows > segment->rows_per_task)
        rows = segment->rows_per_task;
    struct run run = *segment->run;
    run.worker = segment->run->team ? worker : segment->run->worker;
    run.arena += first * chain->task_scratch_per_row;
    run_layers(chain, segment->from, segment->to, &run, rows,
               segment->x + first * chain->layers[segment->from].in_elements,
               segment->y + first * chain->layers[segment->to - 1].out_elements);
}

static uint64_t segment_macs(const struct segment *segment)
{
    uint64_t macs = 0;
    for (size_t i = segment->from; i < segment->to; i++)
        macs += segment->chain->layers[i].macs;
    return macs * segment->rows;
}

static void run_segment(struct segment *segment)
{
    struct moed_team *team = team_for(segment->run->team, segment_macs(segment));
    size_t tasks = team_size(team);
    if (tasks > segment->rows)
        tasks = 1;
    segment->rows_per_task = (segment->rows + tasks - 1) / tasks;
    tasks = (segment->rows + segment->rows_per_task - 1) / segment->rows_per_task;
    team_run(team, tasks, run_segment_task, segment);
}

/* End of the run of layers from `from` that one task can take together. */
static size_t segment_end(const struct chain *chain, size_t from, size_t to)
{
    if (chain->layers[from].collective)
        return from + 1;
    while (from < to && !chain->layers[from].collective)
        from++;
    return from;
}

void chain_forward(const struct chain *chain, size_t from, size_t to, const struct run *run,
                   size_t rows, const float *x, float *y)
{
    float *buffers[2] = {run->arena, run->arena + rows * chain->max_elements};
    struct run inner = *run;
    inner.arena = run->arena + 2 * rows * chain->max_elements;
    if (from == to)
        memcpy(y, x,
               rows * (from ? chain->layers[from - 1].out_elements : chain->in_elements) *
                   sizeof *y);
    while (from < to) {
        const struct layer *layer = &chain->layers[from];
        size_t end = segment_end(chain, from, to);
        float *target = end == to ? y : x == buffers[0] ? buffers[1] : buffers[0];
        if (layer->collective)
            layer->op->forward(layer, &inner, rows, x, target);
        else
            run_segment(&(struct segment){chain, from, end, &inner, rows, rows, x, target});
        x = target;
        from = end;
    }
}

static void tensor_name(const struct layer *layer, const struct build *build, const char *suffix,
                        char name[2 * MAX_TENSOR_NAME])
{
    snprintf(name, 2 * MAX_TENSOR_NAME, "%s%s.%s", build->prefix, layer->name, suffix);
}

const struct tensor *tensor_peek(const struct layer *layer, const struct build *build,
                                 const char *suffix)
{
    char name[2 * MAX_TENSOR_NAME];
    tensor_name(layer, build, suffix, name);
    return safetensors_find(build->tensors, name);
}

struct tensor *tensor_claim(const struct layer *layer, const struct build *build,
                            const char *suffix, struct error *err)
{
    char name[2 * MAX_TENSOR_NAME];
    tensor_name(layer, build, suffix, name);
    if (!*layer->name) {
        error_set(err, ERROR_INVALID, "config.json: a '%s' layer needs a name for its tensor '%s'",
                  layer->op->name, name);
        return NULL;
    }
    struct tensor *tensor = safetensors_find(build->tensors, name);
    if (!tensor) {
        error_set(err, ERROR_INVALID, "%s: tensor '%s' is missing",
                  safetensors_name(build->tensors), name);
        return NULL;
    }
    if (tensor->used) {
        tensor_error(tensor, err, ERROR_INVALID, " is claimed by two layers of that name");
        return NULL;
    }
    tensor->used = true;
    return tensor_check_finite(tensor, err) == 0 ? tensor : NULL;
}

int tensor_expect(const struct tensor *tensor, const size_t *dims, size_t rank, struct error *err)
{
    struct moed_shape expected = {.rank = rank}, found = {.rank = tensor->rank};
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    if (tensor->rank == rank && memcmp(tensor->dims, dims, rank * sizeof *dims) == 0)
        return 0;
    if (tensor->rank > MOED_MAX_RANK)
        return tensor_error(tensor, err, ERROR_INVALID, " has %zu axes, expected %zu", tensor->rank,
                            rank);
    memcpy(expected.dims, dims, rank * sizeof *dims);
    memcpy(found.dims, tensor->dims, tensor->rank * sizeof *tensor->dims);
    return tensor_error(tensor, err, ERROR_INVALID, " has shape %s, expected %s",
                        shape_text(&found, a), shape_text(&expected, b));
}

int array_build(struct array *array, struct layer *layer, const struct build *build,
                const char *suffix, const size_t *dims, size_t rank, bool required,
                struct error *err)
{
    *array = (struct array){0};
    if (!required && !tensor_peek(layer, build, suffix))
        return 0;
    struct tensor *tensor = tensor_claim(layer, build, suffix, err);
    if (!tensor || tensor_expect(tensor, dims, rank, err) != 0)
        return -1;
    array->count = tensor->elements;
    layer->parameters += tensor->elements;
    layer->active_parameters += tensor->elements;
    layer->weight_bytes += tensor->elements * sizeof(float);
    if (tensor->dtype == DTYPE_F32 && (uintptr_t)tensor->data % sizeof(float) == 0) {
        array->values = tensor->data;
        return 0;
    }
    array->owned = malloc(tensor->elements * sizeof(float));
    if (!array->owned)
        return tensor_error(tensor, err, ERROR_INTERNAL, ": no memory");
    tensor_to_f32(tensor, array->owned);
    tensor_drop_pages(tensor);
    array->values = array->owned;
    return 0;
}

void array_close(struct array *array)
{
    free(array->owned);
    *array = (struct array){0};
}

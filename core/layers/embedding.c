/* Learned vectors: embedding (of categories), position_embedding, class_token. */
#include <string.h>

#include "core/layers/ops.h"
#include "core/layers/weights.h"
#include "core/memory.h"
#include "core/text.h"

/* embedding: each integer of a row selects a row of the table, which stays as it is stored: a few
 * of its rows are read at a time. */
struct embedding {
    const struct tensor *table; /* [count, size] */
    size_t count, size;
};

static int claim_table(struct embedding *embedding, const struct scope *scope, struct error *err)
{
    const struct tensor *weight = tensor_peek(scope, "weight");
    if (weight && weight->rank != 2)
        return tensor_error(weight, err, ERROR_INVALID, " has %zu %s, expected [count, size]",
                            weight->rank, weight->rank == 1 ? "axis" : "axes");
    embedding->table = tensor_claim(scope, "weight", err);
    if (!embedding->table)
        return -1;
    embedding->count = embedding->table->dims[0];
    embedding->size = embedding->table->dims[1];
    tensor_leave_pages(embedding->table);
    scope->cost->parameters += embedding->table->elements;
    size_t bytes = embedding->table->elements * dtype_bytes(embedding->table->dtype);
    scope->cost->weight_bytes += bytes;
    scope->cost->mapped_bytes += tensor_is_in_place(embedding->table) ? bytes : 0;
    return 0;
}

static int embedding_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                           struct error *err)
{
    struct embedding *embedding = layer->state = xcalloc(1, sizeof *embedding);
    if (scope->categories == 0)
        return config_error(node, NULL, err,
                            "an embedding is the first layer of an input with \"categories\"");
    if (layer->in.rank == MOED_MAX_RANK)
        return config_error(node, NULL, err, "the result would have more than %d axes",
                            MOED_MAX_RANK);
    if (claim_table(embedding, scope, err) != 0)
        return -1;
    if (scope->categories > embedding->count)
        return config_error(node, NULL, err, "%zu vector%s for an input of %zu %s",
                            embedding->count, text_s(embedding->count), scope->categories,
                            scope->categories == 1 ? "category" : "categories");
    layer->cost.active_parameters = layer->in_elements * embedding->size;
    layer->cost.shared_bytes = layer->cost.active_parameters * dtype_bytes(embedding->table->dtype);
    struct moed_shape out = layer->in;
    out.dims[out.rank++] = embedding->size;
    return layer_set_out(layer, node, &out, err);
}

/* Front ends refuse what is not a category; clamp anyway, so that a bug there cannot read past the
 * table. */
static size_t table_row(const struct embedding *embedding, int32_t value)
{
    size_t last = embedding->count - 1;
    return value < 0 ? 0 : (size_t)value < last ? (size_t)value : last;
}

static void embedding_forward(const struct layer *layer, const struct run *run, size_t rows,
                              const float *x, float *y)
{
    (void)run;
    const struct embedding *embedding = layer->state;
    const struct tensor *table = embedding->table;
    size_t size = embedding->size;
    const int32_t *integers = (const void *)x;
    for (size_t i = 0; i < rows * layer->in_elements; i++)
        tensor_part_to_f32(table, table_row(embedding, integers[i]) * size, size, y + i * size);
}

/* position_embedding: adds the same learned tensor to every row. */
static int position_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                          struct error *err)
{
    struct array *weight = layer->state = xcalloc(1, sizeof *weight);
    layer->cost.macs = layer->in_elements;
    if (array_build(weight, scope, "weight", &layer->in, err) != 0)
        return -1;
    return layer_set_out(layer, node, &layer->in, err);
}

static void position_forward(const struct layer *layer, const struct run *run, size_t rows,
                             const float *x, float *y)
{
    (void)run;
    const struct array *weight = layer->state;
    size_t count = layer->in_elements;
    for (size_t row = 0; row < rows; row++, x += count, y += count)
        for (size_t i = 0; i < count; i++)
            y[i] = x[i] + weight->values[i];
}

/* class_token: puts a learned position before the others; its final state is classified. */
static int class_token_build(struct layer *layer, const struct scope *scope,
                             struct config_node *node, struct error *err)
{
    struct array *weight = layer->state = xcalloc(1, sizeof *weight);
    if (layer->in.rank != 2)
        return config_error(node, NULL, err, "class_token works on rows of [positions, size]");
    struct moed_shape out = layer->in;
    out.dims[0]++;
    struct moed_shape token = {.rank = 1, .dims = {layer->in.dims[1]}};
    if (array_build(weight, scope, "weight", &token, err) != 0)
        return -1;
    return layer_set_out(layer, node, &out, err);
}

static void class_token_forward(const struct layer *layer, const struct run *run, size_t rows,
                                const float *x, float *y)
{
    (void)run;
    const struct array *weight = layer->state;
    for (size_t row = 0; row < rows; row++) {
        memcpy(y, weight->values, weight->count * sizeof *y);
        memcpy(y + weight->count, x, layer->in_elements * sizeof *y);
        x += layer->in_elements;
        y += layer->out_elements;
    }
}

static void weight_free(struct layer *layer)
{
    if (layer->state)
        array_close(layer->state);
}

const struct layer_op op_embedding = {.name = "embedding",
                                      .padding = PADDING_KEPT,
                                      .format = 2,
                                      .reads_integers = true,
                                      .build = embedding_build,
                                      .forward = embedding_forward};
const struct layer_op op_position_embedding = {.name = "position_embedding",
                                               .padding = PADDING_KEPT,
                                               .format = 2,
                                               .in_place = true,
                                               .build = position_build,
                                               .forward = position_forward,
                                               .free = weight_free};
const struct layer_op op_class_token = {.name = "class_token",
                                        .format = 2,
                                        .build = class_token_build,
                                        .forward = class_token_forward,
                                        .free = weight_free};

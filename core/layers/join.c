/* add, multiply, divide, concat: layers that join their input with other values of their list.
 *
 *     add, multiply, divide   the input with the values of "of", the tensor `weight`, the number
 *                             "value"; an axis of size 1 is repeated, as in PyTorch
 *     concat                  the input, then the values of "of", along "axis" */
#include <stdlib.h>
#include <string.h>

#include "core/dense/vector.h"
#include "core/layers/ops.h"
#include "core/layers/weights.h"
#include "core/memory.h"

/* ---- add, multiply, divide ---- */

/* How an operand of some shape is read for a result of another: element i[0], i[1], ... at
 * sum i[a] * stride[a]; a stride is 0 along axes that are repeated. */
struct operand {
    size_t elements; /* per row; 0: the same for every row */
    size_t stride[MOED_MAX_RANK];
    bool whole; /* is of the result's shape */
};

struct join {
    struct operand *operands; /* [count]: the input and the values of "of" */
    size_t count;
    struct operand constant; /* of weight */
    struct array weight;
    bool has_value;
    float value;
    size_t rank, dims[MOED_MAX_RANK]; /* of the result, at least one axis */
};

/* Makes `shape` as large as both; false where they do not go together. */
static bool widen(struct moed_shape *shape, const struct moed_shape *other)
{
    for (size_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] != other->dims[i] && shape->dims[i] != 1 && other->dims[i] != 1)
            return false;
        shape->dims[i] = max_size(shape->dims[i], other->dims[i]);
    }
    return true;
}

static struct operand operand_of(const struct moed_shape *shape, const struct moed_shape *out)
{
    struct operand operand = {.elements = moed_shape_elements(shape),
                              .whole = shape_equal(shape, out)};
    size_t stride = 1;
    for (size_t i = shape->rank; i > 0; i--) {
        operand.stride[i - 1] = shape->dims[i - 1] == 1 ? 0 : stride;
        stride *= shape->dims[i - 1];
    }
    return operand;
}

/* The result's shape: the input's, with axes of size 1 as large as those of the others. */
static int join_shapes(const struct layer *layer, const struct scope *scope,
                       struct config_node *node, struct moed_shape *out, struct error *err)
{
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    *out = layer->in;
    for (size_t i = 0; i < layer->links.operand_count; i++) {
        const struct moed_shape *operand = &scope->operands[i];
        if (operand->rank != out->rank || !widen(out, operand))
            return config_error(node, "of", err,
                                "entry %zu has shape %s, which does not go with %s: axes are equal "
                                "or 1",
                                i, shape_text(operand, a), shape_text(out, b));
    }
    return 0;
}

/* Where one value is padded the result is, at the same entries. */
static int keep_padding(struct layer *layer, const struct scope *scope, struct config_node *node,
                        const struct moed_shape *out, struct error *err)
{
    layer->padded = scope->padded || scope->padded_operands;
    if (layer->padded && out->dims[0] != scope->positions)
        return config_error(node, NULL, err,
                            "the result would have %zu %s, of which %zu may "
                            "be padding",
                            out->dims[0], out->dims[0] == 1 ? "entry" : "entries",
                            scope->positions);
    return 0;
}

/* `weight`: fits the result's last axes, and does not widen them. */
static int build_weight(struct join *join, const struct scope *scope, const struct moed_shape *out,
                        struct error *err)
{
    const struct tensor *tensor = tensor_peek(scope, "weight");
    struct moed_shape shape = {.rank = out->rank}, stored;
    char text[SHAPE_TEXT_BYTES];
    if (!tensor)
        return 0;
    if (tensor->rank > out->rank)
        return tensor_error(tensor, err, ERROR_INVALID, " has %zu %s, the rows have %zu",
                            tensor->rank, tensor->rank == 1 ? "axis" : "axes", out->rank);
    stored.rank = tensor->rank;
    for (size_t i = 0; i < out->rank; i++)
        shape.dims[i] = 1;
    for (size_t i = 0; i < tensor->rank; i++) {
        size_t axis = out->rank - tensor->rank + i;
        stored.dims[i] = shape.dims[axis] = tensor->dims[i];
        if (tensor->dims[i] != 1 && tensor->dims[i] != out->dims[axis])
            return tensor_error(tensor, err, ERROR_INVALID,
                                ": axis %zu does not go with rows of %s", i, shape_text(out, text));
    }
    join->constant = operand_of(&shape, out);
    join->constant.elements = 0;
    return array_build(&join->weight, scope, "weight", &stored, err);
}

static int join_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                      struct error *err)
{
    struct join *join = layer->state = xcalloc(1, sizeof *join);
    struct moed_shape out;
    double value = 0;
    if (join_shapes(layer, scope, node, &out, err) != 0 ||
        keep_padding(layer, scope, node, &out, err) != 0 ||
        layer_set_out(layer, node, &out, err) != 0 || build_weight(join, scope, &out, err) != 0)
        return -1;
    join->has_value = config_has(node, "value");
    if (join->has_value && config_real(node, "value", NULL, &value, err) != 0)
        return -1;
    join->value = (float)value;
    if (!layer->links.operand_count && !join->weight.values && !join->has_value)
        return config_error(node, NULL, err,
                            "%s needs \"of\", the tensor 'weight' or \"value\" to join with its "
                            "input",
                            layer->op->name);
    join->count = 1 + layer->links.operand_count;
    join->operands = xcalloc(join->count, sizeof *join->operands);
    for (size_t i = 0; i < join->count; i++)
        join->operands[i] = operand_of(i ? &scope->operands[i - 1] : &layer->in, &out);
    join->rank = out.rank ? out.rank : 1;
    memcpy(join->dims, out.rank ? out.dims : (size_t[]){1}, join->rank * sizeof *join->dims);
    layer->cost.macs = join->count * layer->out_elements;
    return 0;
}

/* y = x, z + x, z * x or z / x over a line; z may be y. */
enum function { COPY, ADD, MULTIPLY, DIVIDE };

static inline void apply(enum function function, const float *z, const float *x, size_t stride,
                         size_t count, float *y)
{
    switch (function) {
    case COPY:
        for (size_t i = 0; i < count; i++)
            y[i] = x[i * stride];
        break;
    case ADD:
        for (size_t i = 0; i < count; i++)
            y[i] = z[i] + x[i * stride];
        break;
    case MULTIPLY:
        for (size_t i = 0; i < count; i++)
            y[i] = z[i] * x[i * stride];
        break;
    case DIVIDE:
        for (size_t i = 0; i < count; i++)
            y[i] = z[i] / x[i * stride];
        break;
    }
}

static inline void apply_line(enum function function, const float *z, const float *x, size_t stride,
                              size_t count, float *y)
{
    if (stride == 1) /* a loop of its own, which is made of vectors */
        apply(function, z, x, 1, count, y);
    else if (stride == 0)
        apply(function, z, x, 0, count, y);
}

/* One row of an operand, line by line along the last axis. */
static inline void apply_row(enum function function, const struct join *join,
                             const struct operand *operand, const float *z, const float *x,
                             float *y)
{
    size_t last = join->rank - 1, count = join->dims[last];
    size_t index[MOED_MAX_RANK] = {0}, at = 0;
    for (;;) {
        apply_line(function, z, x + at, operand->stride[last], count, y);
        y += count;
        z += count;
        size_t axis = last;
        while (axis > 0 && ++index[axis - 1] == join->dims[axis - 1]) {
            at -= operand->stride[axis - 1] * (join->dims[axis - 1] - 1);
            index[--axis] = 0;
        }
        if (axis == 0)
            return;
        at += operand->stride[axis - 1];
    }
}

/* Of all rows: z, the operand and the result. */
struct step {
    size_t rows;
    const float *z, *x;
    float *y;
};

static inline void apply_all(enum function function, const struct layer *layer,
                             const struct operand *operand, struct step step)
{
    size_t count = layer->out_elements;
    if (operand->whole && operand->elements) {
        apply_line(function, step.z, step.x, 1, step.rows * count, step.y);
        return;
    }
    for (size_t row = 0; row < step.rows; row++)
        apply_row(function, layer->state, operand, step.z + row * count,
                  step.x + row * operand->elements, step.y + row * count);
}

/* An input of the result's shape is what the first function is of; another is repeated into y. */
static inline void join_forward(enum function function, const struct layer *layer,
                                const struct run *run, size_t rows, const float *x, float *y)
{
    const struct join *join = layer->state;
    const float *z = join->operands[0].whole ? x : y;
    if (z == y)
        apply_all(COPY, layer, &join->operands[0], (struct step){rows, y, x, y});
    for (size_t i = 1; i < join->count; i++, z = y)
        apply_all(function, layer, &join->operands[i],
                  (struct step){rows, z, run->operands[i - 1], y});
    if (join->weight.values) {
        apply_all(function, layer, &join->constant, (struct step){rows, z, join->weight.values, y});
        z = y;
    }
    if (join->has_value)
        apply_line(function, z, &join->value, 0, rows * layer->out_elements, y);
}

VECTORIZED static void add_forward(const struct layer *layer, const struct run *run, size_t rows,
                                   const float *x, float *y)
{
    join_forward(ADD, layer, run, rows, x, y);
}

VECTORIZED static void multiply_forward(const struct layer *layer, const struct run *run,
                                        size_t rows, const float *x, float *y)
{
    join_forward(MULTIPLY, layer, run, rows, x, y);
}

VECTORIZED static void divide_forward(const struct layer *layer, const struct run *run, size_t rows,
                                      const float *x, float *y)
{
    join_forward(DIVIDE, layer, run, rows, x, y);
}

static void join_free(struct layer *layer)
{
    struct join *join = layer->state;
    if (!join)
        return;
    array_close(&join->weight);
    free(join->operands);
}

/* ---- concat ---- */

/* A row of every part is [outer, its axis, inner]: blocks of consecutive numbers. */
struct concat {
    size_t outer, *blocks; /* blocks: [1 + operands] */
};

static int concat_build(struct layer *layer, const struct scope *scope, struct config_node *node,
                        struct error *err)
{
    struct concat *concat = layer->state = xcalloc(1, sizeof *concat);
    struct moed_shape out = layer->in;
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    size_t at;
    if (layer_read_axis(layer, node, 0, &at, err) != 0)
        return -1;
    if (layer->links.operand_count == 0)
        return config_error(node, "of", err, "missing; expected a list of names");
    layer->padded = scope->padded || scope->padded_operands;
    if (layer->padded && at == 0)
        return config_error(node, "axis", err, "the first axis ends in padding");
    size_t inner = concat->outer = 1;
    for (size_t i = 0; i < out.rank; i++)
        *(i < at ? &concat->outer : &inner) *= i == at ? 1 : out.dims[i];
    concat->blocks = xcalloc(1 + layer->links.operand_count, sizeof *concat->blocks);
    concat->blocks[0] = out.dims[at] * inner;
    for (size_t i = 0; i < layer->links.operand_count; i++) {
        struct moed_shape part = scope->operands[i];
        size_t size = part.rank == out.rank ? part.dims[at] : 0;
        part.dims[at] = out.dims[at];
        if (!shape_equal(&part, &out))
            return config_error(node, "of", err,
                                "entry %zu has shape %s, which cannot follow %s along axis %zu", i,
                                shape_text(&scope->operands[i], a), shape_text(&layer->in, b), at);
        concat->blocks[1 + i] = size * inner;
        out.dims[at] += size;
    }
    return layer_set_out(layer, node, &out, err);
}

static void concat_forward(const struct layer *layer, const struct run *run, size_t rows,
                           const float *x, float *y)
{
    const struct concat *concat = layer->state;
    for (size_t part = 0, first = 0; part <= layer->links.operand_count; part++) {
        const float *from = part ? run->operands[part - 1] : x;
        size_t block = concat->blocks[part];
        size_t pitch = layer->out_elements / concat->outer;
        for (size_t i = 0; i < rows * concat->outer; i++)
            memcpy(y + i * pitch + first, from + i * block, block * sizeof *y);
        first += block;
    }
}

static void concat_free(struct layer *layer)
{
    struct concat *concat = layer->state;
    if (concat)
        free(concat->blocks);
}

const struct layer_op op_add = {.name = "add",
                                .padding = PADDING_OWN,
                                .format = 3,
                                .joins = true,
                                .build = join_build,
                                .forward = add_forward,
                                .free = join_free};
const struct layer_op op_multiply = {.name = "multiply",
                                     .padding = PADDING_OWN,
                                     .format = 3,
                                     .joins = true,
                                     .build = join_build,
                                     .forward = multiply_forward,
                                     .free = join_free};
const struct layer_op op_divide = {.name = "divide",
                                   .padding = PADDING_OWN,
                                   .format = 3,
                                   .joins = true,
                                   .build = join_build,
                                   .forward = divide_forward,
                                   .free = join_free};
const struct layer_op op_concat = {.name = "concat",
                                   .padding = PADDING_OWN,
                                   .format = 3,
                                   .joins = true,
                                   .build = concat_build,
                                   .forward = concat_forward,
                                   .free = concat_free};

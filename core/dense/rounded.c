/* Rounds weights output by output when they are packed, and inputs block by block when they are
 * multiplied. A block lies on the stack: no scratch has to be planned for it, and rounding the
 * inputs once more for each part of the outputs costs little beside the product. */
#include "core/dense/rounded.h"

#include <stdlib.h>
#include <string.h>

#include "core/dense/integers.h"
#include "core/dense/quantize.h"

/* ---- packing ---- */

int rounded_output_init(struct rounded_output *output, const struct tensor *tensor, size_t k,
                        enum integer_format format, struct error *err)
{
    *output = (struct rounded_output){.tensor = tensor, .k = k, .format = format};
    output->floats = malloc(k * sizeof *output->floats);
    output->integers = malloc(integer_groups(k) * GROUP * sizeof *output->integers);
    output->scales = malloc(integer_groups(k) * sizeof *output->scales);
    if (output->floats && output->integers && output->scales)
        return 0;
    rounded_output_close(output);
    return panels_error(tensor, err);
}

void rounded_output_close(struct rounded_output *output)
{
    free(output->floats);
    free(output->integers);
    free(output->scales);
}

int rounded_output_read(struct rounded_output *output, size_t i, struct error *err)
{
    tensor_part_to_f32(output->tensor, i * output->k, output->k, output->floats);
    if (quantize_weights(output->floats, output->k, output->format, output->integers,
                         output->scales) == 0)
        return 0;
    return error_set(err, ERROR_INVALID,
                     "tensor '%s': the weights of output %zu are not all finite, which %u bits "
                     "cannot hold",
                     output->tensor->name, i, integer_bits(output->format));
}

/* Of numbers plus FP4_MOST. */
static const uint8_t FP4_PLACES[2 * FP4_MOST + 1] = {
    [13] = 1, [14] = 2,  [15] = 3, [16] = 4, [18] = 5, [20] = 6, [24] = 7,
    [11] = 9, [10] = 10, [9] = 11, [8] = 12, [6] = 13, [4] = 14, [0] = 15};

/* Octet n of those that hold a weight of each quad (integers.h). */
static unsigned octet_of(const uint8_t weights[QUADS], unsigned bits, size_t n)
{
    const uint8_t *four = weights + n / 3 * 4;
    if (bits == 8)
        return weights[n];
    if (bits == 4)
        return weights[2 * n] | (unsigned)weights[2 * n + 1] << 4;
    return four[n % 3] | (four[3] >> (4 - n % 3 * 2) & 3u) << 6;
}

/* Quads of an output's group, `pitch` bytes apart. */
static void put_quads(const int8_t *integers, enum integer_format format, size_t pitch, uint8_t *to)
{
    unsigned bits = integer_bits(format);
    for (size_t i = 0; i < QUAD; i++) {
        uint8_t weights[QUADS];
        for (size_t q = 0; q < QUADS; q++) {
            weights[q] = (uint8_t)(integers[q * QUAD + i] + integer_zero(format));
            if (format == INTEGER_FP4)
                weights[q] = FP4_PLACES[weights[q]];
        }
        for (size_t n = 0; n < bits; n++)
            to[n * pitch + i] = (uint8_t)octet_of(weights, bits, n);
    }
}

static void put_output(const struct rounded *rounded, size_t i, const struct rounded_output *output)
{
    size_t panel = rounded->kernel->panel, at = i % panel;
    size_t bytes = integer_group_bytes(rounded->format, panel);
    uint8_t *group = (uint8_t *)rounded->panels + i / panel * rounded->groups * bytes;
    size_t place = paired_place(at, panel);
    for (size_t g = 0; g < rounded->groups; g++, group += bytes) {
        memcpy(group + place * sizeof *output->scales, output->scales + g, sizeof *output->scales);
        put_quads(output->integers + g * GROUP, rounded->format, panel * QUAD,
                  group + panel * sizeof *output->scales + at * QUAD);
    }
}

/* Missing outputs of the last panel are zeros. */
static int allocate(struct rounded *rounded, struct panels_store *store,
                    const struct tensor *tensor, struct error *err)
{
    size_t each = rounded->groups * integer_group_bytes(rounded->format, rounded->kernel->panel);
    rounded->panels = panels_new(store, rounded->bytes);
    if (!rounded->panels)
        return panels_error(tensor, err);
    memset((char *)rounded->panels + rounded->bytes - each, 0, each);
    return 0;
}

void rounded_size(struct rounded *rounded)
{
    rounded->kernel = integer_kernel_get();
    rounded->groups = integer_groups(rounded->k);
    size_t panel = rounded->kernel->panel, panels = (rounded->n + panel - 1) / panel;
    rounded->bytes = panels * rounded->groups * integer_group_bytes(rounded->format, panel);
}

int rounded_init(struct rounded *rounded, struct panels_store *store, const struct tensor *tensor,
                 struct error *err)
{
    struct rounded_output output;
    if (allocate(rounded, store, tensor, err) != 0 ||
        rounded_output_init(&output, tensor, rounded->k, rounded->format, err) != 0)
        return -1;
    int result = 0;
    for (size_t i = 0; i < rounded->n && result == 0; i++) {
        result = rounded_output_read(&output, i, err);
        if (result == 0)
            put_output(rounded, i, &output);
    }
    rounded_output_close(&output);
    return result;
}

void rounded_close(struct rounded *rounded)
{
    if (!rounded->stored)
        free(rounded->panels);
}

/* ---- products ---- */

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void quantize_block(const struct rounded *rounded, const float *x,
                           struct integer_inputs *inputs)
{
    size_t first = inputs->from * GROUP,
           count = min_size(inputs->groups * GROUP, rounded->k - first);
    for (size_t row = 0; row < inputs->rows; row++) {
        size_t group = row * inputs->groups;
        quantize_inputs(x + row * rounded->k + first, count, integer_zero(rounded->format),
                        inputs->values + group * GROUP, inputs->scales + group,
                        inputs->starts + group);
    }
}

/* Of some rows, from `row` on. */
static void add_block(const struct rounded_product *product, const struct columns_of *columns,
                      const struct integer_inputs *inputs, size_t row)
{
    const struct rounded *rounded = product->weights;
    struct integer_weights weights = {.panels = rounded->panels,
                                      .format = rounded->format,
                                      .n = rounded->n,
                                      .groups = rounded->groups,
                                      .columns = *columns};
    rounded->kernel->add(&weights, inputs, product->bias, product->y + row * rounded->n);
}

void rounded_parts(const struct rounded_product *products, size_t count,
                   const struct columns_of *columns, const float *x, size_t rows)
{
    const struct rounded *rounded = products->weights;
    struct integer_inputs inputs;
    size_t blocks = (rows + BLOCK_ROWS_MOST - 1) / BLOCK_ROWS_MOST;
    for (size_t block = 0, row = 0; block < blocks; block++, row += inputs.rows) {
        inputs.rows = rows * (block + 1) / blocks - row;
        size_t depth = BLOCK_NUMBERS / GROUP / inputs.rows;
        for (inputs.from = 0; inputs.from < rounded->groups; inputs.from += depth) {
            inputs.groups = min_size(depth, rounded->groups - inputs.from);
            quantize_block(rounded, x + row * rounded->k, &inputs);
            for (size_t i = 0; i < count; i++)
                add_block(&products[i], columns, &inputs, row);
        }
    }
}

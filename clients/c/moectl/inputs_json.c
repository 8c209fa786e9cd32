/* Rows in JSON become arrays of doubles, which hold every number of JSON as the server reads it, or
 * of texts. */
#include "clients/c/moectl/inputs_json.h"

#include <endian.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = MOED_CLIENT_MAX_RANK };

struct leaves {
    size_t numbers, texts, text_bytes;
};

/* Numbers and texts in nested lists. -1: something else is in them, or they are nested too
 * deeply. */
static int count_leaves(json_t *value, int depth, struct leaves *leaves)
{
    if (json_is_number(value)) {
        leaves->numbers++;
        return 0;
    }
    if (json_is_string(value)) {
        leaves->texts++;
        leaves->text_bytes += json_string_length(value);
        return json_string_length(value) > UINT32_MAX ? -1 : 0;
    }
    if (!json_is_array(value) || depth == MAX_DEPTH)
        return -1;
    size_t i;
    json_t *element;
    json_array_foreach(value, i, element)
    {
        if (count_leaves(element, depth + 1, leaves) != 0)
            return -1;
    }
    return 0;
}

/* Each text behind its length, as tensors of BYTES have them. */
static char *copy_texts(json_t *value, char *to)
{
    size_t i;
    json_t *element;
    if (json_is_string(value)) {
        uint32_t length = (uint32_t)json_string_length(value), stored = htole32(length);
        memcpy(to, &stored, sizeof stored);
        memcpy(to + sizeof stored, json_string_value(value), length);
        return to + sizeof stored + length;
    }
    json_array_foreach(value, i, element)
    {
        to = copy_texts(element, to);
    }
    return to;
}

static double *copy_numbers(json_t *value, double *to)
{
    size_t i;
    json_t *element;
    if (json_is_number(value)) {
        *to = json_number_value(value);
        return to + 1;
    }
    json_array_foreach(value, i, element)
    {
        to = copy_numbers(element, to);
    }
    return to;
}

/* A list of lists has rows; of a flat one they are told apart by the model's shape. */
static int add_array(struct arrays *arrays, const char *name, json_t *rows,
                     struct moed_client_error *err)
{
    struct leaves leaves = {0};
    if (!json_is_array(rows) || count_leaves(rows, 0, &leaves) != 0 ||
        (leaves.numbers > 0 && leaves.texts > 0))
        return fail_with(err, "%s%.64s%s: expected a list of rows, each of numbers or of texts",
                         *name ? "'" : "the rows", name, *name ? "'" : "");
    bool texts = leaves.texts > 0;
    size_t bytes = texts ? leaves.texts * sizeof(uint32_t) + leaves.text_bytes
                         : leaves.numbers * sizeof(double);
    void *data = malloc(bytes + 1);
    struct array *list = realloc(arrays->list, (arrays->count + 1) * sizeof *list);
    if (list)
        arrays->list = list;
    if (!list || !data) {
        free(data);
        return fail_with(err, "no memory for the rows of '%.64s'", name);
    }
    if (texts)
        copy_texts(rows, data);
    else
        copy_numbers(rows, data);
    bool flat = !json_is_array(json_array_get(rows, 0));
    list[arrays->count++] = (struct array){
        .name = xstrdup(name),
        .datatype = texts ? MOED_CLIENT_BYTES : MOED_CLIENT_FP64,
        .rank = flat ? 1 : 2,
        .dims = {(int64_t)json_array_size(rows), 1},
        .data = data,
        .bytes = bytes,
    };
    return 0;
}

/* {"inputs": [{"name", "data"}, ...]}: shape and datatype are the model's to say. */
static int add_inputs(struct arrays *arrays, json_t *inputs, struct moed_client_error *err)
{
    size_t i;
    json_t *input;
    json_array_foreach(inputs, i, input)
    {
        const char *name = json_string_value(json_object_get(input, "name"));
        json_t *data = json_object_get(input, "data");
        if (!name || !data)
            return fail_with(err, "inputs[%zu]: expected {\"name\", \"data\"}", i);
        if (add_array(arrays, name, data, err) != 0)
            return -1;
    }
    return arrays->count > 0 ? 0 : fail_with(err, "\"inputs\" is empty");
}

static int add_members(struct arrays *arrays, json_t *root, struct moed_client_error *err)
{
    const char *name;
    json_t *rows;
    json_object_foreach (root, name, rows) {
        if (add_array(arrays, name, rows, err) != 0)
            return -1;
    }
    return arrays->count > 0 ? 0 : fail_with(err, "there are no rows");
}

static int add_row(json_t *columns, json_t *row, size_t index, struct moed_client_error *err)
{
    const char *name;
    json_t *value;
    if (!json_is_object(row))
        return fail_with(err, "row %zu: expected an object of inputs, as row 0 is one", index);
    json_object_foreach (row, name, value) {
        json_t *column = json_object_get(columns, name);
        if (!column && index > 0)
            return fail_with(err, "row %zu: '%.64s' is not in the rows before", index, name);
        if (!column) {
            column = json_array();
            json_object_set_new(columns, name, column);
        }
        if (json_array_append(column, value) != 0)
            return fail_with(err, "no memory for row %zu", index);
    }
    if (json_object_size(row) != json_object_size(columns))
        return fail_with(err, "row %zu: expected the %zu inputs of the rows before, got %zu", index,
                         json_object_size(columns), json_object_size(row));
    return 0;
}

/* [{input: value, ...}, ...]: KServe V1's rows of several inputs. */
static int add_rows(struct arrays *arrays, json_t *rows, struct moed_client_error *err)
{
    if (!json_is_object(json_array_get(rows, 0)))
        return add_array(arrays, "", rows, err);
    json_t *columns = json_object(), *row;
    size_t i;
    int result = 0;
    json_array_foreach(rows, i, row)
    {
        if ((result = add_row(columns, row, i, err)) != 0)
            break;
    }
    if (result == 0)
        result = add_members(arrays, columns, err);
    json_decref(columns);
    return result;
}

int json_arrays(const char *text, size_t length, struct arrays *arrays,
                struct moed_client_error *err)
{
    json_error_t at;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at);
    json_t *instances = json_object_get(root, "instances"),
           *inputs = json_object_get(root, "inputs");
    int result;
    *arrays = (struct arrays){0};
    if (!root)
        result = fail_with(err, "neither .npy nor .npz, and as JSON: line %d, column %d: %s",
                           at.line, at.column, at.text);
    else if (json_is_array(root) || instances)
        result = add_rows(arrays, instances ? instances : root, err);
    else if (json_is_array(inputs) && json_is_object(json_array_get(inputs, 0)))
        result = add_inputs(arrays, inputs, err);
    else
        result = add_members(arrays, json_is_object(inputs) ? inputs : root, err);
    json_decref(root);
    return result;
}

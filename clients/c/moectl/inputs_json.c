/* Rows in JSON become arrays of doubles, which hold every number of JSON as the server reads it. */
#include "clients/c/moectl/inputs_json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = MOED_CLIENT_MAX_RANK };

/* Numbers in nested lists. SIZE_MAX: something else is in them, or they are nested too deeply. */
static size_t count_numbers(json_t *value, int depth)
{
    if (json_is_number(value))
        return 1;
    if (!json_is_array(value) || depth == MAX_DEPTH)
        return SIZE_MAX;
    size_t count = 0, i;
    json_t *element;
    json_array_foreach(value, i, element)
    {
        size_t numbers = count_numbers(element, depth + 1);
        if (numbers == SIZE_MAX)
            return SIZE_MAX;
        count += numbers;
    }
    return count;
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
    size_t numbers = json_is_array(rows) ? count_numbers(rows, 0) : SIZE_MAX;
    if (numbers == SIZE_MAX)
        return fail_with(err, "%s%.64s%s: expected a list of rows, each of numbers",
                         *name ? "'" : "the rows", name, *name ? "'" : "");
    double *data = malloc(numbers * sizeof *data + 1);
    struct array *list = realloc(arrays->list, (arrays->count + 1) * sizeof *list);
    if (list)
        arrays->list = list;
    if (!list || !data) {
        free(data);
        return fail_with(err, "no memory for %zu number%s", numbers, ending(numbers));
    }
    copy_numbers(rows, data);
    bool flat = json_is_number(json_array_get(rows, 0));
    list[arrays->count++] = (struct array){
        .name = xstrdup(name),
        .datatype = MOED_CLIENT_FP64,
        .rank = flat ? 1 : 2,
        .dims = {(int64_t)json_array_size(rows), 1},
        .data = data,
        .bytes = numbers * sizeof *data,
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

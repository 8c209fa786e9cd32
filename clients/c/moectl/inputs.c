/* Rows for a model; see inputs.h. Everything becomes arrays first, which are then fitted. */
#include "clients/c/moectl/inputs.h"

#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/inputs_json.h"

enum { MAX_FILE_BYTES = 1 << 30 };

/* ---- fitting ---- */

/* Numbers of one row; 0: the shape leaves it open. */
static size_t numbers_per_row(const struct moed_client_tensor *input)
{
    size_t numbers = 1;
    for (size_t i = 1; i < input->rank; i++)
        if (input->dims[i] < 1 || __builtin_mul_overflow(numbers, (size_t)input->dims[i], &numbers))
            return 0;
    return numbers;
}

/* Texts lie behind their lengths: how many bytes the one at `at` takes. */
static size_t text_bytes(const struct array *array, size_t at)
{
    uint32_t length;
    memcpy(&length, (const char *)array->data + at, sizeof length);
    return sizeof length + le32toh(length);
}

static size_t elements_of(const struct array *array)
{
    size_t count = 0;
    if (array->datatype != MOED_CLIENT_BYTES)
        return array->bytes / moed_client_datatype_bytes(array->datatype);
    for (size_t at = 0; at < array->bytes; at += text_bytes(array, at))
        count++;
    return count;
}

/* Where each row of texts begins, and the last one ends. */
static size_t *find_rows(const struct array *array, size_t rows, size_t numbers)
{
    size_t *row_at = xcalloc(rows + 1, sizeof *row_at), at = 0;
    for (size_t i = 0; i < rows; i++, row_at[i] = at)
        for (size_t j = 0; j < numbers; j++)
            at += text_bytes(array, at);
    return row_at;
}

/* Says what the array has in place of rows of `numbers` numbers. */
static int refuse_shape(const struct moed_client_tensor *input, size_t numbers,
                        const struct array *array, size_t elements, struct moed_client_error *err)
{
    size_t rows = array->rank > 1 ? (size_t)array->dims[0] : 0;
    const char *plural = numbers == 1 ? "" : "s";
    if (rows == 0)
        return fail_with(err, "input '%.64s': expected rows of %zu number%s, got %zu number%s",
                         input->name, numbers, plural, elements, elements == 1 ? "" : "s");
    return fail_with(err, "input '%.64s': expected rows of %zu number%s, got %zu row%s of %zu",
                     input->name, numbers, plural, rows, rows == 1 ? "" : "s", elements / rows);
}

/* Rows are counted by the model's shape: an array of another shape that holds the same numbers,
 * such as flat rows, fits. */
static int fit(const struct moed_client_tensor *input, const struct array *array,
               struct moed_client_tensor *tensor, struct moed_client_error *err)
{
    size_t numbers = numbers_per_row(input);
    size_t elements = elements_of(array);
    if (numbers == 0)
        return fail_with(err, "input '%.64s' has no fixed shape", input->name);
    if (elements == 0 || elements % numbers != 0)
        return refuse_shape(input, numbers, array, elements, err);
    size_t rows = elements / numbers;
    if (array->rank > 1 && input->rank == 1)
        return fail_with(
            err,
            "input '%.64s' is a sequence, and takes no rows: a language model is asked "
            "at /v1/completions, an embedder at /v1/embeddings",
            input->name);
    if (array->rank > 1 && (size_t)array->dims[0] != rows && rows > 1)
        return refuse_shape(input, numbers, array, elements, err);
    *tensor = *input;
    tensor->datatype = array->datatype;
    tensor->dims[0] = (int64_t)rows;
    tensor->data = array->data;
    tensor->bytes = array->bytes;
    return 0;
}

/* The array of that name; the only array, labels apart, is that of the only input whatever its
 * name.
 */
static const struct array *find_array(const struct inputs *inputs, const char *name)
{
    const struct array *only = NULL;
    size_t others = 0;
    for (size_t i = 0; i < inputs->arrays.count; i++)
        if (strcmp(inputs->arrays.list[i].name, "labels") != 0 || inputs->arrays.count == 1) {
            only = &inputs->arrays.list[i];
            others++;
        }
    if (inputs->count == 1 && others == 1)
        return only;
    for (size_t i = 0; i < inputs->arrays.count; i++)
        if (strcmp(inputs->arrays.list[i].name, name) == 0)
            return &inputs->arrays.list[i];
    return NULL;
}

static int fit_all(struct inputs *inputs, const struct moed_client_model *model,
                   struct moed_client_error *err)
{
    if (model->input_count == 0)
        return fail_with(err, "the model names no input");
    inputs->tensors = xcalloc(model->input_count, sizeof *inputs->tensors);
    inputs->row_at = xcalloc(model->input_count, sizeof *inputs->row_at);
    inputs->count = model->input_count;
    for (size_t i = 0; i < model->input_count; i++) {
        const struct moed_client_tensor *input = &model->inputs[i];
        const struct array *array = find_array(inputs, input->name);
        if (!array)
            return fail_with(err,
                             "no array for input '%.64s': expected one of that name for each of "
                             "the model's %zu input%s",
                             input->name, model->input_count, ending(model->input_count));
        if (fit(input, array, &inputs->tensors[i], err) != 0)
            return -1;
        size_t rows = (size_t)inputs->tensors[i].dims[0];
        if (array->datatype == MOED_CLIENT_BYTES)
            inputs->row_at[i] = find_rows(array, rows, numbers_per_row(input));
        if (i > 0 && rows != inputs->rows)
            return fail_with(err, "input '%.64s' has %zu row%s, '%.64s' %zu", input->name, rows,
                             ending(rows), model->inputs[0].name, inputs->rows);
        inputs->rows = rows;
    }
    return 0;
}

/* ---- files ---- */

static int parse_npy(const char *data, size_t length, struct arrays *arrays,
                     struct moed_client_error *err)
{
    arrays->list = xcalloc(1, sizeof *arrays->list);
    arrays->count = 1;
    return npy_read(data, length, &arrays->list[0], err);
}

int inputs_parse(struct inputs *inputs, const struct moed_client_model *model, const char *data,
                 size_t length, struct moed_client_error *err)
{
    int result;
    *inputs = (struct inputs){0};
    if (npy_is(data, length))
        result = parse_npy(data, length, &inputs->arrays, err);
    else if (npz_is(data, length))
        result = npz_read(data, length, &inputs->arrays, err);
    else
        result = json_arrays(data, length, &inputs->arrays, err);
    if (result == 0)
        result = fit_all(inputs, model, err);
    if (result != 0)
        inputs_close(inputs);
    return result;
}

int inputs_read(struct inputs *inputs, const struct moed_client_model *model, const char *path,
                struct moed_client_error *err)
{
    size_t length;
    char *data = read_file(path, MAX_FILE_BYTES, &length, err);
    if (!data)
        return -1;
    int result = inputs_parse(inputs, model, data, length, err);
    if (result != 0)
        fail_in(err, path);
    free(data);
    return result;
}

/* ---- made up ---- */

/* A linear congruential generator: the same rows in every run. */
static float next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 24);
}

static void fill(struct array *array, size_t numbers, size_t categories)
{
    uint32_t state = 1;
    float *values = array->data;
    int32_t *indices = array->data;
    double most = categories > INT32_MAX ? INT32_MAX : (double)categories;
    for (size_t i = 0; i < numbers; i++) {
        float random = next_random(&state);
        if (array->datatype == MOED_CLIENT_FP32)
            values[i] = random;
        else
            indices[i] = (int32_t)((double)random * most);
    }
}

static int make_array(struct array *array, const struct moed_client_tensor *input, size_t rows,
                      struct moed_client_error *err)
{
    size_t numbers;
    array->name = xstrdup(input->name);
    array->datatype = input->datatype == MOED_CLIENT_FP32 ? MOED_CLIENT_FP32 : MOED_CLIENT_INT32;
    array->rank = 1;
    if (__builtin_mul_overflow(numbers_per_row(input), rows, &numbers) || numbers == 0 ||
        numbers > MAX_FILE_BYTES / sizeof(float) || !(array->data = calloc(numbers, sizeof(float))))
        return fail_with(err, "cannot make %zu row%s for input '%.64s'", rows, ending(rows),
                         input->name);
    array->bytes = numbers * sizeof(float);
    fill(array, numbers, input->categories);
    return 0;
}

int inputs_make(struct inputs *inputs, const struct moed_client_model *model, size_t rows,
                struct moed_client_error *err)
{
    *inputs = (struct inputs){0};
    inputs->arrays.list = xcalloc(model->input_count, sizeof *inputs->arrays.list);
    int result = 0;
    for (size_t i = 0; result == 0 && i < model->input_count; i++, inputs->arrays.count++)
        result = make_array(&inputs->arrays.list[i], &model->inputs[i], rows, err);
    if (result == 0)
        result = fit_all(inputs, model, err);
    if (result != 0)
        inputs_close(inputs);
    return result;
}

/* ---- use ---- */

void inputs_close(struct inputs *inputs)
{
    for (size_t i = 0; i < inputs->count; i++)
        free(inputs->row_at[i]);
    free(inputs->row_at);
    free(inputs->tensors);
    arrays_close(&inputs->arrays);
    *inputs = (struct inputs){0};
}

void inputs_slice(const struct inputs *inputs, size_t first, size_t count,
                  struct moed_client_tensor *tensors)
{
    for (size_t i = 0; i < inputs->count; i++) {
        const size_t *row_at = inputs->row_at[i];
        size_t row_bytes = inputs->tensors[i].bytes / inputs->rows;
        size_t begin = row_at ? row_at[first] : first * row_bytes;
        size_t end = row_at ? row_at[first + count] : (first + count) * row_bytes;
        tensors[i] = inputs->tensors[i];
        tensors[i].dims[0] = (int64_t)count;
        tensors[i].data = (const char *)tensors[i].data + begin;
        tensors[i].bytes = end - begin;
    }
}

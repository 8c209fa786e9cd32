/* `moectl predict`: answers for the rows of a file, and which experts gave them. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/inputs.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"
#include "clients/c/moectl/terminal.h"
#include "clients/c/text.h"

/* ---- what is asked for ---- */

static bool is_routing(const char *name)
{
    return strncmp(name, "routing.", 8) == 0;
}

static size_t numbers_per_row(const struct moed_client_tensor *tensor)
{
    size_t numbers = 1;
    for (size_t i = 1; i < tensor->rank; i++)
        numbers *= tensor->dims[i] > 0 ? (size_t)tensor->dims[i] : 1;
    return numbers;
}

/* All outputs and the routing. A table asks for the largest classes, whose names only the server
 * knows. The caller frees. */
static struct moed_client_output *wanted_outputs(const struct settings *settings,
                                                 const struct moed_client_model *model)
{
    struct moed_client_output *outputs = xcalloc(model->output_count, sizeof *outputs);
    for (size_t i = 0; i < model->output_count; i++) {
        outputs[i].name = model->outputs[i].name;
        size_t numbers = numbers_per_row(&model->outputs[i]);
        if (!settings->json && !is_routing(outputs[i].name) && numbers > 1)
            outputs[i].classification =
                (unsigned)(settings->top < numbers ? settings->top : numbers);
    }
    return outputs;
}

/* ---- elements ---- */

/* A copy, since only its address is known to be aligned. Datatypes that no output has are NAN. */
static double element(const struct moed_client_tensor *tensor, size_t i)
{
    if (tensor->datatype == MOED_CLIENT_INT32)
        return ((const int32_t *)tensor->data)[i];
    if (tensor->datatype == MOED_CLIENT_INT64)
        return (double)((const int64_t *)tensor->data)[i];
    if (tensor->datatype == MOED_CLIENT_FP32)
        return (double)((const float *)tensor->data)[i];
    return tensor->datatype == MOED_CLIENT_FP64 ? ((const double *)tensor->data)[i] : NAN;
}

/* Integers as they are; of the others the shortest text that reads back as the same float. */
static json_t *json_element(const struct moed_client_tensor *tensor, size_t i)
{
    double value = element(tensor, i);
    char text[40];
    if (tensor->datatype == MOED_CLIENT_INT32 || tensor->datatype == MOED_CLIENT_INT64)
        return json_integer((json_int_t)value);
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == (float)value)
            break;
    }
    return isfinite(value) ? json_real(strtod(text, NULL)) : json_null();
}

/* ---- JSON ---- */

/* Nested by the shape from axis `axis` on; `*at` is the next element. */
static json_t *json_nested(const struct moed_client_tensor *tensor, size_t axis, size_t *at)
{
    if (axis == tensor->rank)
        return json_element(tensor, (*at)++);
    json_t *list = json_array();
    for (int64_t i = 0; i < tensor->dims[axis]; i++)
        json_array_append_new(list, json_nested(tensor, axis + 1, at));
    return list;
}

/* Appends the rows of one answer to root[name]. */
static void add_rows(json_t *root, const char *name, const struct moed_client_tensor *tensor)
{
    size_t at = 0;
    json_t *rows = json_nested(tensor, 0, &at), *known = json_object_get(root, name);
    if (known)
        json_array_extend(known, rows);
    else
        json_object_set(root, name, rows);
    json_decref(rows);
}

static json_t *object_in(json_t *root, const char *name)
{
    json_t *object = json_object_get(root, name);
    if (!object) {
        object = json_object();
        json_object_set_new(root, name, object);
    }
    return object;
}

/* "routing.LAYER.experts" goes to routing[LAYER]["experts"]. */
static void add_json(json_t *root, const struct moed_client_tensor *tensor)
{
    if (!is_routing(tensor->name)) {
        add_rows(object_in(root, "outputs"), tensor->name, tensor);
        return;
    }
    char *layer = xstrdup(tensor->name + 8), *dot = strrchr(layer, '.');
    if (dot) {
        *dot = '\0';
        add_rows(object_in(object_in(root, "routing"), layer), dot + 1, tensor);
    }
    free(layer);
}

/* ---- the table ---- */

/* "0.99:9:Ankle boot" is printed as "Ankle boot 0.99"; without a label the index. */
static void print_class(const char *text, size_t length)
{
    char copy[256];
    snprintf(copy, sizeof copy, "%.*s", (int)length, text);
    text_keep_whole(copy);
    char *index = strchr(copy, ':'), *label = index ? strchr(index + 1, ':') : NULL;
    if (!index)
        return;
    *index++ = '\0';
    char *name = printable(label ? label + 1 : index);
    printf(" %s %.4g", name, strtod(copy, NULL));
    free(name);
}

/* The classes of one row; `*at` moves behind them. The library has checked that they are there. */
static void print_classes(const struct moed_client_tensor *tensor, const unsigned char **at)
{
    for (int64_t i = 0; i < (tensor->rank > 1 ? tensor->dims[1] : 1); i++) {
        size_t length =
            (*at)[0] | (size_t)(*at)[1] << 8 | (size_t)(*at)[2] << 16 | (size_t)(*at)[3] << 24;
        fputs(i ? "," : "", stdout);
        print_class((const char *)*at + 4, length);
        *at += 4 + length;
    }
}

/* "1 (0.98), 0 (0.02)"; a layer that routes positions shows the first ones. */
static void print_route(const struct moed_client_tensor *experts,
                        const struct moed_client_tensor *weights, size_t row)
{
    enum { MOST = 8 };
    size_t numbers = numbers_per_row(experts);
    for (size_t i = 0; i < numbers && i < MOST; i++)
        printf("%s %.0f (%.3g)", i ? "," : "", element(experts, row * numbers + i),
               element(weights, row * numbers + i));
    fputs(numbers > MOST ? ", ..." : "", stdout);
}

static void print_output(const struct moed_client_result *result, size_t output, size_t row,
                         const unsigned char **classes)
{
    const struct moed_client_tensor *tensor = &result->outputs[output];
    char *name = printable(is_routing(tensor->name) ? tensor->name + 8 : tensor->name);
    if (is_routing(tensor->name)) {
        char *dot = strrchr(name, '.');
        const char *part = dot ? dot + 1 : "";
        if (strcmp(part, "weights") == 0) { /* checked: the experts stand before them */
            *dot = '\0';
            printf("  | %s", name);
            print_route(tensor - 1, tensor, row);
        }
    } else {
        printf("  %s", name);
        if (tensor->datatype == MOED_CLIENT_BYTES)
            print_classes(tensor, classes);
        else
            printf(" %.4g", element(tensor, row * numbers_per_row(tensor)));
    }
    free(name);
}

static void print_rows(const struct moed_client_result *result, size_t first, size_t rows)
{
    const unsigned char **classes = xcalloc(result->output_count, sizeof *classes);
    for (size_t i = 0; i < result->output_count; i++)
        classes[i] = result->outputs[i].data;
    for (size_t row = 0; row < rows; row++) {
        printf("%6zu", first + row);
        for (size_t i = 0; i < result->output_count; i++)
            print_output(result, i, row, &classes[i]);
        putchar('\n');
    }
    free(classes);
}

/* ---- the command ---- */

static bool ends_in(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Whether there are so many rows, of at least one number each: the library has compared sizes with
 * bytes, which says nothing about the others where one is 0. */
static bool has_rows(const struct moed_client_tensor *tensor, size_t rows)
{
    bool fits = tensor->rank > 0 && (size_t)tensor->dims[0] == rows;
    for (size_t axis = 1; axis < tensor->rank; axis++)
        fits = fits && tensor->dims[axis] > 0;
    return fits;
}

/* Whether every output has so many rows and the weights are those of the experts before them. */
static int check_rows(const struct moed_client_result *result, size_t rows,
                      struct moed_client_error *err)
{
    for (size_t i = 0; i < result->output_count; i++) {
        const struct moed_client_tensor *tensor = &result->outputs[i];
        if (!has_rows(tensor, rows))
            return fail_with(err, "the answer's '%.64s' is not one of %zu row%s", tensor->name,
                             rows, ending(rows));
        if (ends_in(tensor->name, ".weights") && is_routing(tensor->name) &&
            (i == 0 || !ends_in(tensor[-1].name, ".experts") ||
             numbers_per_row(tensor) != numbers_per_row(&tensor[-1])))
            return fail_with(err, "the answer's '%.64s' has no experts that it fits", tensor->name);
    }
    return 0;
}

static int predict_part(struct moed_client *client, const struct moed_client_request *request,
                        size_t first, json_t *root, struct moed_client_error *err)
{
    size_t rows = (size_t)request->inputs[0].dims[0];
    const struct moed_client_result *result = moed_client_infer(client, request, err);
    int status = result ? check_rows(result, rows, err) : -1;
    if (status == 0 && root) {
        json_object_set_new(root, "model_name", json_string(result->model));
        json_object_set_new(root, "model_version", json_string(result->version));
        for (size_t i = 0; i < result->output_count; i++)
            add_json(root, &result->outputs[i]);
    } else if (status == 0)
        print_rows(result, first, rows);
    moed_client_result_free(result);
    return status;
}

static int predict_all(const struct settings *settings, struct moed_client *client,
                       const struct moed_client_model *model, const struct inputs *inputs,
                       struct moed_client_error *err)
{
    struct moed_client_tensor *part = xcalloc(inputs->count, sizeof *part);
    struct moed_client_output *outputs = wanted_outputs(settings, model);
    const struct moed_client_request request = {settings->operands[0],
                                                settings->version,
                                                NULL,
                                                part,
                                                inputs->count,
                                                outputs,
                                                model->output_count,
                                                NULL};
    json_t *root = settings->json ? json_object() : NULL;
    size_t step = settings->rows ? settings->rows : 64;
    int result = 0;
    for (size_t first = 0; result == 0 && first < inputs->rows; first += step) {
        size_t left = inputs->rows - first;
        inputs_slice(inputs, first, left < step ? left : step, part);
        result = predict_part(client, &request, first, root, err);
    }
    if (result == 0 && root) {
        print_json(stdout, root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    }
    json_decref(root);
    free(outputs);
    free(part);
    return result;
}

int run_predict(const struct settings *settings, struct moed_client_error *err)
{
    const char *path = settings->operand_count > 1 ? settings->operands[1] : "-";
    struct moed_client *client = connect_client(settings, err);
    const struct moed_client_model *model =
        client ? moed_client_model(client, settings->operands[0], settings->version, err) : NULL;
    struct inputs inputs = {0};
    int result = model ? inputs_read(&inputs, model, path, err) : -1;
    if (result == 0)
        result = predict_all(settings, client, model, &inputs, err);
    inputs_close(&inputs);
    moed_client_model_free(model);
    moed_client_free(client);
    return result;
}

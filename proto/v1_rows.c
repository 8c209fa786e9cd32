/* Where the values of V1 requests lie. Rows that are objects are turned into one list for each
 * input, which is then read like every other. */
#include "proto/v1_rows.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "core/text.h"
#include "proto/members.h"

/* The first character inside the list; ']' if it is empty. */
static char first_of(const struct envelope_literal *literal)
{
    const char *c = literal->text + 1;
    while (text_is_space(*c))
        c++;
    return *c;
}

static int set_rows(struct infer_request *request, const struct infer_limits *limits,
                    const char *where, size_t rows, struct error *err)
{
    if (rows > limits->max_rows)
        return error_set(err, ERROR_TOO_LARGE, "'%s' has %zu rows, the limit is %zu in one request",
                         where, rows, limits->max_rows);
    request->rows = rows;
    return 0;
}

/* ---- instances as values ---- */

/* Reports why 'instances' is not a list of values. */
static int refuse_instances(const json_t *instances, const struct signature_tensor *input,
                            struct error *err)
{
    const json_t *first = json_array_get(instances, 0);
    if (!first)
        return error_set(err, ERROR_INVALID,
                         "empty batch: 'instances' has no rows, expected at least one");
    if (json_is_array(first))
        return error_set(err, ERROR_INVALID,
                         "input '%s': instances[0] does not begin with numbers, expected %zu",
                         input->name, input->elements);
    return error_set(err, ERROR_INVALID,
                     "input '%s': instances[0] is %s, expected a list of %zu number%s", input->name,
                     member_type(first), input->elements, text_s(input->elements));
}

/* The most common mistake is a single row without the list around it. It is reported first:
 * otherwise its numbers would count as rows, and the message would be about their number. */
static int check_values(const struct envelope_literal *literal, const struct signature *signature,
                        struct error *err)
{
    const struct signature_tensor *input = &signature->inputs[0];
    char first = first_of(literal);
    if (signature->input_count != 1)
        return error_set(err, ERROR_INVALID,
                         "model '%s' has %zu inputs: name them, as in {\"instances\": [{\"%s\": "
                         "...}, ...]}",
                         signature->model, signature->input_count, input->name);
    if (first != '[' && input->elements > 1)
        return error_set(
            err, ERROR_INVALID,
            "input '%s': instances[0] is %s, expected a list of %zu number%s: each row "
            "is a list of its own",
            input->name,
            first == '"'   ? "a string"
            : first == 'n' ? "null"
                           : "a number",
            input->elements, text_s(input->elements));
    return 0;
}

static void use_literal(struct infer_input *input, const char *where,
                        const struct envelope_literal *literal)
{
    *input = (struct infer_input){.where = where,
                                  .data = literal->text,
                                  .length = literal->length,
                                  .datatype = DATATYPE_FP32};
}

/* ---- instances as objects ---- */

/* A walk over rows of objects. */
struct objects {
    struct infer_request *request;
    const char *c, *end;
    size_t row;
    struct span {
        const char *text;
        size_t length;
    } * values;           /* [input_count] of this row; text NULL: not seen */
    struct buffer *lists; /* [input_count] */
    struct error *err;
};

static void skip_space(struct objects *objects)
{
    while (objects->c < objects->end && text_is_space(*objects->c))
        objects->c++;
}

static int refuse(const struct objects *objects, const char *expected)
{
    return error_set(objects->err, ERROR_INVALID, "instances[%zu]: byte %zu: expected %s",
                     objects->row, (size_t)(objects->c - objects->request->body), expected);
}

static int expect(struct objects *objects, char c, const char *expected)
{
    skip_space(objects);
    if (objects->c == objects->end || *objects->c != c)
        return refuse(objects, expected);
    objects->c++;
    skip_space(objects);
    return 0;
}

/* The input whose name is the string at the cursor. */
static int read_name(struct objects *objects, size_t *index)
{
    const struct signature *signature = objects->request->signature;
    const char *name = objects->c + 1;
    if (objects->c == objects->end || *objects->c != '"')
        return refuse(objects, "the name of an input");
    objects->c = json_string_end(objects->c, objects->end);
    size_t length = (size_t)(objects->c - name) - 1;
    for (*index = 0; *index < signature->input_count; ++*index) {
        const char *known = signature->inputs[*index].name;
        if (strlen(known) == length && memcmp(known, name, length) == 0)
            break;
    }
    if (*index == signature->input_count)
        return error_set(objects->err, ERROR_INVALID, "instances[%zu]: unknown input '%.*s'",
                         objects->row, length < 60 ? (int)length : 60, name);
    if (objects->values[*index].text)
        return error_set(objects->err, ERROR_INVALID, "instances[%zu]: input '%s' is given twice",
                         objects->row, signature->inputs[*index].name);
    return 0;
}

/* Skips the value at the cursor: brackets match, the envelope has seen to that. What the value is
 * like is the reader's concern. */
static int read_value(struct objects *objects, struct span *value)
{
    size_t depth = 0;
    value->text = objects->c;
    while (objects->c < objects->end) {
        char c = *objects->c;
        if (c == '{' || (depth == 0 && (c == ',' || c == '}' || text_is_space(c))))
            break;
        if (c == '"') {
            objects->c = json_string_end(objects->c, objects->end);
            continue;
        }
        objects->c++;
        depth += c == '[';
        if (c == ']' && --depth == 0)
            break;
    }
    value->length = (size_t)(objects->c - value->text);
    if (value->length == 0 || depth > 0)
        return refuse(objects, "a value: a number, a string, null or a list of them");
    return 0;
}

static int read_members(struct objects *objects)
{
    size_t index = 0;
    skip_space(objects);
    for (bool first = true; objects->c < objects->end && *objects->c != '}'; first = false) {
        if (!first && expect(objects, ',', "a comma") != 0)
            return -1;
        if (read_name(objects, &index) != 0 || expect(objects, ':', "a colon") != 0 ||
            read_value(objects, &objects->values[index]) != 0)
            return -1;
        skip_space(objects);
    }
    return expect(objects, '}', "a comma or the end of the object");
}

static int append_row(struct objects *objects)
{
    const struct signature *signature = objects->request->signature;
    for (size_t i = 0; i < signature->input_count; i++) {
        const struct signature_tensor *input = &signature->inputs[i];
        struct span *value = &objects->values[i];
        struct buffer *list = &objects->lists[i];
        if (!value->text && (!input->has_missing || input->elements > 1))
            return error_set(objects->err, ERROR_INVALID, "instances[%zu]: input '%s' is missing",
                             objects->row, input->name);
        buffer_text(list, objects->row ? "," : "[");
        if (value->text)
            buffer_append(list, value->text, value->length);
        else
            buffer_text(list, "null");
        value->text = NULL;
    }
    return 0;
}

/* Gives the request the lists as its inputs' data. */
static int use_lists(struct objects *objects)
{
    struct infer_request *request = objects->request;
    request->texts = xcalloc(request->signature->input_count, sizeof *request->texts);
    for (size_t i = 0; i < request->signature->input_count; i++) {
        struct buffer *list = &objects->lists[i];
        struct infer_input *input = &request->inputs[i];
        buffer_text(list, "]");
        if (list->failed)
            return buffer_error(list, "the rows", "send fewer", objects->err);
        *input = (struct infer_input){.where = "instances", .datatype = DATATYPE_FP32};
        input->base = input->data = request->texts[i] = buffer_steal(list, &input->length);
    }
    return 0;
}

static int read_objects(struct objects *objects)
{
    objects->c++; /* the list's bracket */
    for (; objects->row < objects->request->rows; objects->row++) {
        if ((objects->row && expect(objects, ',', "a comma") != 0) ||
            expect(objects, '{', "an object, like the rows before") != 0 ||
            read_members(objects) != 0 || append_row(objects) != 0)
            return -1;
    }
    skip_space(objects);
    if (*objects->c != ']')
        return refuse(objects, "the end of the list");
    return use_lists(objects);
}

static int decode_objects(const struct envelope_literal *literal, struct infer_request *request,
                          struct error *err)
{
    size_t count = request->signature->input_count;
    struct objects objects = {.request = request,
                              .c = literal->text,
                              .end = literal->text + literal->length,
                              .values = xcalloc(count, sizeof *objects.values),
                              .lists = xcalloc(count, sizeof *objects.lists),
                              .err = err};
    /* A comma or bracket and at most "null" for what is not there. */
    for (size_t i = 0; i < count; i++)
        buffer_init(&objects.lists[i], literal->length + 8 * (request->rows + 1));
    int result = read_objects(&objects);
    for (size_t i = 0; i < count; i++)
        buffer_close(&objects.lists[i]);
    free(objects.lists);
    free(objects.values);
    return result;
}

/* ---- columns ---- */

static int decode_column(struct envelope *envelope, const struct infer_limits *limits,
                         struct infer_request *request, size_t index, const json_t *value,
                         struct error *err)
{
    const char *name = request->signature->inputs[index].name;
    const struct envelope_literal *literal =
        json_is_array(value) ? envelope_claim(envelope, value) : NULL;
    if (!literal)
        return error_set(err, ERROR_INVALID, "input '%s': expected a list with one entry a row",
                         name);
    if (request->rows && request->rows != literal->entries)
        return error_set(err, ERROR_INVALID, "input '%s' has %zu row%s, the inputs before it %zu",
                         name, literal->entries, text_s(literal->entries), request->rows);
    use_literal(&request->inputs[index], "inputs", literal);
    return set_rows(request, limits, "inputs", literal->entries, err);
}

static int decode_columns(struct envelope *envelope, const struct infer_limits *limits,
                          struct infer_request *request, const json_t *columns, struct error *err)
{
    const struct signature *signature = request->signature;
    const char *key;
    json_t *value;
    request->columns = true;
    if (!json_is_object(columns)) {
        if (signature->input_count == 1)
            return decode_column(envelope, limits, request, 0, columns, err);
        return error_set(err, ERROR_INVALID, "'inputs' is %s, expected an object with %zu input%s",
                         member_type(columns), signature->input_count,
                         text_s(signature->input_count));
    }
    for (size_t i = 0; i < signature->input_count; i++) {
        const char *name = signature->inputs[i].name;
        value = json_object_get(columns, name);
        if (!value)
            return error_set(err, ERROR_INVALID, "input '%s' is missing in 'inputs'", name);
        if (decode_column(envelope, limits, request, i, value, err) != 0)
            return -1;
    }
    json_object_foreach ((json_t *)columns, key, value) {
        size_t i = 0;
        while (i < signature->input_count && strcmp(signature->inputs[i].name, key) != 0)
            i++;
        if (i == signature->input_count)
            return error_set(err, ERROR_INVALID, "unknown input " QUOTED " in 'inputs'", key);
    }
    return 0;
}

int v1_decode_rows(struct envelope *envelope, const struct infer_limits *limits,
                   struct infer_request *request, struct error *err)
{
    const struct signature *signature = request->signature;
    const json_t *instances = NULL, *columns = json_object_get(envelope->root, "inputs");
    request->inputs = xcalloc(signature->input_count, sizeof *request->inputs);
    if (member_list(envelope->root, NULL, "instances", &instances, err) != 0)
        return -1;
    if (instances && columns)
        return error_set(err, ERROR_INVALID, "expected 'instances' or 'inputs', not both");
    if (columns)
        return decode_columns(envelope, limits, request, columns, err);
    if (!instances)
        return member_missing(NULL, "instances", "a list with one entry for each row", err);
    const struct envelope_literal *literal = envelope_claim(envelope, instances);
    if (!literal)
        return refuse_instances(instances, &signature->inputs[0], err);
    if (set_rows(request, limits, "instances", literal->entries, err) != 0)
        return -1;
    if (first_of(literal) == '{')
        return decode_objects(literal, request, err);
    if (check_values(literal, signature, err) != 0)
        return -1;
    use_literal(&request->inputs[0], "instances", literal);
    return 0;
}

/* Decodes the inputs of an Open Inference Protocol request: their names, shapes and datatypes, and
 * where their numbers are. */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/members.h"
#include "proto/number.h"
#include "proto/oip_decode.h"

/* One entry of "inputs" while it is read. */
struct input_entry {
    const json_t *object;
    size_t position; /* in the list */
    char where[OIP_WHERE_BYTES];
    const struct signature_tensor *tensor;
    struct infer_input *input;
};

/* ---- shape ---- */

/* Reads one integer: "1.0" and "1e0" are not integers. NULL if there is none. */
static const char *scan_integer(const char *text, const char *end, double *value)
{
    const char *after = number_scan(text, end, value);
    for (const char *c = text; after && c < after; c++)
        if (*c == '.' || *c == 'e' || *c == 'E')
            return NULL;
    return after;
}

/* Reads a list of integers into dims; returns their count, or INFER_MAX_AXES + 1 if there are more;
 * -1 if the text is anything else. */
static int scan_shape(const struct envelope_literal *literal, double dims[INFER_MAX_AXES])
{
    const char *c = literal->text, *end = literal->text + literal->length;
    int count = 0;
    do {
        for (c++; c < end && text_is_space(*c); c++)
            ;
        double dim;
        c = scan_integer(c, end, &dim);
        if (!c)
            return -1;
        if (count == INFER_MAX_AXES)
            return INFER_MAX_AXES + 1;
        dims[count++] = dim;
        while (c < end && text_is_space(*c))
            c++;
    } while (c < end && *c == ',');
    return c + 1 == end && *c == ']' ? count : -1;
}

static int wrong_shape(struct oip_decoder *decoder, const struct input_entry *entry,
                       const struct envelope_literal *literal)
{
    char expected[SHAPE_TEXT_BYTES];
    return error_set(
        decoder->err, ERROR_INVALID, "%s: shape is %.*s, expected %s", entry->where,
        literal->length < OIP_WHERE_BYTES ? (int)literal->length : OIP_WHERE_BYTES, literal->text,
        text_of_shape(expected, "rows", entry->tensor->dims, entry->tensor->rank, ","));
}

/* All inputs have the same rows; the first one given decides. */
static int decode_rows(struct oip_decoder *decoder, const struct input_entry *entry, double rows)
{
    if (!(rows >= 1))
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: empty batch: the shape has %.0f rows, expected at least one",
                         entry->where, rows);
    size_t limit = SIZE_MAX / sizeof(double) / entry->tensor->elements; /* sizes cannot overflow */
    if (limit > decoder->limits->max_rows)
        limit = decoder->limits->max_rows;
    if (rows > (double)limit)
        return error_set(decoder->err, ERROR_TOO_LARGE,
                         "%s: the shape has %.15g rows, the limit is %zu in one request",
                         entry->where, rows, limit);
    size_t count = (size_t)rows;
    if (decoder->request->rows != 0 && decoder->request->rows != count)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: the shape has %zu row%s, the inputs before it have %zu", entry->where,
                         count, text_s(count), decoder->request->rows);
    decoder->request->rows = count;
    return 0;
}

static int decode_shape(struct oip_decoder *decoder, const struct input_entry *entry)
{
    const json_t *shape = NULL;
    if (member_list(entry->object, entry->where, "shape", &shape, decoder->err) != 0)
        return -1;
    if (!shape)
        return member_missing(entry->where, "shape", "a list of whole numbers", decoder->err);
    const struct envelope_literal *literal = envelope_claim(&decoder->envelope, shape);
    if (!literal)
        return error_set(decoder->err, ERROR_INVALID, "%s: 'shape' is not a list of whole numbers",
                         entry->where);
    double dims[INFER_MAX_AXES];
    int count = scan_shape(literal, dims);
    if (count != (int)entry->tensor->rank + 1)
        return wrong_shape(decoder, entry, literal);
    for (size_t axis = 0; axis < entry->tensor->rank; axis++)
        if (dims[axis + 1] != (double)entry->tensor->dims[axis])
            return wrong_shape(decoder, entry, literal);
    if (dims[0] < 0)
        return wrong_shape(decoder, entry, literal);
    return decode_rows(decoder, entry, dims[0]);
}

/* ---- where the numbers are ---- */

static int decode_datatype(struct oip_decoder *decoder, const struct input_entry *entry)
{
    const char *name = NULL;
    if (member_string(entry->object, entry->where, "datatype", &name, decoder->err) != 0)
        return -1;
    if (!name)
        return member_missing(entry->where, "datatype", "FP32 or another type of numbers",
                              decoder->err);
    entry->input->datatype = datatype_from_name(name);
    bool words = entry->input->datatype == DATATYPE_BYTES && entry->tensor->words;
    if (!words && !datatype_is_numeric(entry->input->datatype))
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: datatype is " QUOTED ", expected %s or another type of numbers",
                         entry->where, name, entry->tensor->words ? "BYTES, INT32" : "FP32");
    return 0;
}

static int not_numbers(struct oip_decoder *decoder, const struct input_entry *entry,
                       const json_t *data)
{
    const json_t *first = json_array_get(data, 0);
    if (!first)
        return error_set(decoder->err, ERROR_INVALID, "%s: 'data' is empty, expected %zu number%s",
                         entry->where, decoder->request->rows * entry->tensor->elements,
                         text_s(decoder->request->rows * entry->tensor->elements));
    return error_set(decoder->err, ERROR_INVALID, "%s: 'data' begins with %s, expected numbers",
                     entry->where,
                     json_is_array(first) ? "lists without values" : member_type(first));
}

static int decode_json_data(struct oip_decoder *decoder, const struct input_entry *entry,
                            const json_t *data)
{
    enum datatype datatype = entry->input->datatype;
    if (datatype == DATATYPE_FP16 || datatype == DATATYPE_BF16)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: %s cannot be sent as JSON: send FP32, or binary data", entry->where,
                         datatype_name(datatype));
    const struct envelope_literal *literal = envelope_claim(&decoder->envelope, data);
    if (!literal)
        return not_numbers(decoder, entry, data);
    /* The shape is only a claim: a short body must not make the server reserve memory for many
     * rows. The reader reports smaller mismatches, with their place. */
    size_t numbers = decoder->request->rows * entry->tensor->elements;
    if (numbers > literal->length)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: 'data' has %zu byte%s, too few for the %zu number%s of its shape",
                         entry->where, literal->length, text_s(literal->length), numbers,
                         text_s(numbers));
    entry->input->data = literal->text;
    entry->input->length = literal->length;
    return 0;
}

/* What messages call the number of an input's bytes. */
static const char *size_name(const struct oip_decoder *decoder)
{
    return decoder->tensors ? "the number of its bytes" : "'binary_data_size'";
}

static int check_binary_size(struct oip_decoder *decoder, const struct input_entry *entry,
                             size_t bytes)
{
    size_t elements = decoder->request->rows * entry->tensor->elements;
    size_t expected = elements * datatype_bytes(entry->input->datatype);
    if (entry->input->datatype == DATATYPE_BYTES && bytes / 4 < elements)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: %s is %zu, too few for %zu word%s with their lengths", entry->where,
                         size_name(decoder), bytes, elements, text_s(elements));
    if (entry->input->datatype != DATATYPE_BYTES && bytes != expected)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: %s is %zu, expected %zu (%zu row%s of %zu %s)", entry->where,
                         size_name(decoder), bytes, expected, decoder->request->rows,
                         text_s(decoder->request->rows), entry->tensor->elements,
                         datatype_name(entry->input->datatype));
    return 0;
}

/* The next bytes behind the JSON. */
static const char *take_tail(struct oip_decoder *decoder, const struct input_entry *entry,
                             size_t bytes)
{
    size_t left = (size_t)(decoder->tail_end - decoder->tail);
    if (bytes > left) {
        error_set(decoder->err, ERROR_INVALID,
                  "%s: 'binary_data_size' is %zu, and after the JSON there is room for %zu: is "
                  "the header Inference-Header-Content-Length right?",
                  entry->where, bytes, left);
        return NULL;
    }
    decoder->tail += bytes;
    return decoder->tail - bytes;
}

static int decode_binary_data(struct oip_decoder *decoder, const struct input_entry *entry,
                              size_t bytes)
{
    if (check_binary_size(decoder, entry, bytes) != 0)
        return -1;
    entry->input->binary = true;
    entry->input->length = bytes;
    entry->input->data = decoder->tensors ? decoder->tensors[entry->position].bytes
                                          : take_tail(decoder, entry, bytes);
    return entry->input->data ? 0 : -1;
}

/* Exactly one of "data" and "binary_data_size" says where the numbers are. */
static int decode_data(struct oip_decoder *decoder, const struct input_entry *entry)
{
    const json_t *data = NULL, *parameters = NULL;
    size_t bytes = SIZE_MAX; /* absent; member_size() never gives as much */
    if (member_list(entry->object, entry->where, "data", &data, decoder->err) != 0 ||
        member_object(entry->object, entry->where, "parameters", &parameters, decoder->err) != 0 ||
        member_size(parameters, entry->where, "binary_data_size", &bytes, decoder->err) != 0)
        return -1;
    if (json_object_get(parameters, "shared_memory_region"))
        return error_set(decoder->err, ERROR_INVALID, "%s: shared memory is not supported",
                         entry->where);
    if (!data == (bytes == SIZE_MAX))
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: expected exactly one of 'data' and the parameter 'binary_data_size'",
                         entry->where);
    return data ? decode_json_data(decoder, entry, data)
                : decode_binary_data(decoder, entry, bytes);
}

/* ---- names ---- */

static void list_inputs(const struct signature *signature, char text[OIP_LISTING_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < signature->input_count && used < OIP_LISTING_BYTES; i++)
        used += (size_t)snprintf(text + used, OIP_LISTING_BYTES - used, "%s'%s'", i > 0 ? ", " : "",
                                 signature->inputs[i].name);
}

static int unknown_input(struct oip_decoder *decoder, const char *name)
{
    char known[OIP_LISTING_BYTES];
    list_inputs(decoder->signature, known);
    return error_set(decoder->err, ERROR_INVALID, "unknown input " QUOTED ": model '%s' has %s",
                     name, decoder->signature->model, known);
}

/* Finds which of the model's inputs an entry is. */
static int decode_name(struct oip_decoder *decoder, struct input_entry *entry)
{
    const struct signature *signature = decoder->signature;
    const char *name = NULL;
    if (member_string(entry->object, entry->where, "name", &name, decoder->err) != 0)
        return -1;
    if (!name)
        return member_missing(entry->where, "name", "the name of an input", decoder->err);
    size_t index = 0;
    while (index < signature->input_count && strcmp(signature->inputs[index].name, name) != 0)
        index++;
    if (index == signature->input_count)
        return unknown_input(decoder, name);
    entry->tensor = &signature->inputs[index];
    entry->input = &decoder->request->inputs[index];
    snprintf(entry->where, sizeof entry->where, "input " QUOTED, name);
    if (entry->input->where)
        return error_set(decoder->err, ERROR_INVALID, "%s is given twice", entry->where);
    *entry->input = (struct infer_input){.where = "data"};
    return 0;
}

static int decode_input(struct oip_decoder *decoder, const json_t *object, size_t position)
{
    struct input_entry entry = {.object = object, .position = position};
    snprintf(entry.where, sizeof entry.where, "inputs[%zu]", position);
    if (!json_is_object(object))
        return error_set(decoder->err, ERROR_INVALID, "%s is %s, expected an object", entry.where,
                         json_is_number(object) ? "a value" : member_type(object)); /* a stand-in */
    if (decode_name(decoder, &entry) != 0 || decode_datatype(decoder, &entry) != 0 ||
        decode_shape(decoder, &entry) != 0)
        return -1;
    return decode_data(decoder, &entry);
}

int oip_decode_inputs(struct oip_decoder *decoder)
{
    const struct signature *signature = decoder->signature;
    const json_t *inputs = NULL;
    if (member_list(decoder->envelope.root, NULL, "inputs", &inputs, decoder->err) != 0)
        return -1;
    if (!inputs)
        return member_missing(NULL, "inputs", "a list of input tensors", decoder->err);
    decoder->request->inputs = xcalloc(signature->input_count, sizeof *decoder->request->inputs);
    for (size_t i = 0; i < json_array_size(inputs); i++)
        if (decode_input(decoder, json_array_get(inputs, i), i) != 0)
            return -1;
    for (size_t i = 0; i < signature->input_count; i++)
        if (!decoder->request->inputs[i].data)
            return error_set(decoder->err, ERROR_INVALID, "input '%s' is missing",
                             signature->inputs[i].name);
    return 0;
}

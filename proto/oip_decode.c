/* Decodes inference requests of the Open Inference Protocol.
 *
 * The body is JSON, then the binary tensors in the order of the inputs that announce them.
 * Everything is checked here but the numbers themselves, which infer_reader reads. */
#include "oip.h"

#include "envelope.h"
#include "members.h"
#include "number.h"
#include "oip_outputs.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for "input '<quoted>'", and for a list of names or a shape; longer ones are cut. */
enum { WHERE_BYTES = 96, LISTING_BYTES = 256 };

/* A request in the making. */
struct decoder {
    const struct signature *signature;
    const struct infer_limits *limits;
    struct infer_request *request;
    struct envelope envelope;
    const char *tail, *tail_end; /* the binary data no input has taken yet */
    bool binary_output;          /* what an output is that does not say */
    struct error *err;
};

/* One entry of "inputs", as far as it is read. */
struct input_entry {
    const json_t *object;
    char where[WHERE_BYTES];
    const struct signature_tensor *tensor;
    struct infer_input *input;
};

/* ---- what a message lists ---- */

static void list_name(char text[LISTING_BYTES], const char *const name[3])
{
    size_t used = strlen(text);
    snprintf(text + used, LISTING_BYTES - used, "%s'%s%s%s'", used > 0 ? ", " : "", name[0],
             name[1], name[2]);
}

static const char *list_inputs(const struct signature *signature, char text[LISTING_BYTES])
{
    text[0] = '\0';
    for (size_t i = 0; i < signature->input_count; i++)
        list_name(text, (const char *const[]){"", signature->inputs[i].name, ""});
    return text;
}

static const char *list_outputs(const struct signature *signature, char text[LISTING_BYTES])
{
    text[0] = '\0';
    for (size_t i = 0; i < oip_output_count(signature); i++) {
        struct oip_output output = oip_output_at(signature, i);
        list_name(text, output.name);
    }
    return text;
}

/* ---- shape ---- */

/* Reads a list of whole numbers into dims; the count, or INFER_MAX_AXES + 1 when there are more.
 * Returns -1 when the text is anything else. */
static int scan_shape(const struct envelope_literal *literal, double dims[INFER_MAX_AXES])
{
    const char *c = literal->text, *end = literal->text + literal->length;
    int count = 0;
    do {
        for (c++; c < end && strchr(" \t\r\n", *c) && *c; c++)
            ;
        double dim;
        c = number_scan(c, end, &dim);
        if (!c || dim != floor(dim))
            return -1;
        if (count == INFER_MAX_AXES)
            return INFER_MAX_AXES + 1;
        dims[count++] = dim;
        while (c < end && strchr(" \t\r\n", *c) && *c)
            c++;
    } while (c < end && *c == ',');
    return c + 1 == end && *c == ']' ? count : -1;
}

static void describe_shape(const struct signature_tensor *tensor, char text[LISTING_BYTES])
{
    int used = snprintf(text, LISTING_BYTES, "[rows");
    for (size_t axis = 0; axis < tensor->rank && used < LISTING_BYTES; axis++)
        used += snprintf(text + used, LISTING_BYTES - (size_t)used, ",%zu", tensor->dims[axis]);
    if (used < LISTING_BYTES)
        snprintf(text + used, LISTING_BYTES - (size_t)used, "]");
}

static int wrong_shape(struct decoder *decoder, const struct input_entry *entry,
                       const struct envelope_literal *literal)
{
    char expected[LISTING_BYTES];
    describe_shape(entry->tensor, expected);
    return error_set(decoder->err, ERROR_INVALID, "%s: shape is %.*s, expected %s", entry->where,
                     literal->length < WHERE_BYTES ? (int)literal->length : WHERE_BYTES,
                     literal->text, expected);
}

/* All inputs have the same rows; the first one given decides. */
static int decode_rows(struct decoder *decoder, const struct input_entry *entry, double rows)
{
    if (!(rows >= 1))
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: empty batch: the shape has %.0f rows, expected at least one",
                         entry->where, rows);
    size_t limit = SIZE_MAX / sizeof(double) / entry->tensor->elements; /* sizes cannot wrap */
    if (limit > decoder->limits->max_rows)
        limit = decoder->limits->max_rows;
    if (rows > (double)limit)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: the shape has %.0f rows, the limit is %zu in one request",
                         entry->where, rows, limit);
    size_t count = (size_t)rows;
    if (decoder->request->rows != 0 && decoder->request->rows != count)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: the shape has %zu rows, the inputs before it have %zu", entry->where,
                         count, decoder->request->rows);
    decoder->request->rows = count;
    return 0;
}

static int decode_shape(struct decoder *decoder, const struct input_entry *entry)
{
    const json_t *shape = NULL;
    if (member_list(entry->object, entry->where, "shape", &shape, decoder->err) != 0)
        return -1;
    if (!shape)
        return member_missing(entry->where, "shape", decoder->err);
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
    return decode_rows(decoder, entry, dims[0]);
}

/* ---- inputs ---- */

static int decode_datatype(struct decoder *decoder, const struct input_entry *entry)
{
    const char *name = NULL;
    if (member_string(entry->object, entry->where, "datatype", &name, decoder->err) != 0)
        return -1;
    if (!name)
        return member_missing(entry->where, "datatype", decoder->err);
    entry->input->datatype = datatype_from_name(name);
    if (!datatype_is_numeric(entry->input->datatype))
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: datatype is " QUOTED ", expected FP32 or another type of numbers",
                         entry->where, name);
    return 0;
}

static int decode_json_data(struct decoder *decoder, const struct input_entry *entry,
                            const json_t *data)
{
    enum datatype datatype = entry->input->datatype;
    if (datatype == DATATYPE_FP16 || datatype == DATATYPE_BF16)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: %s has no form in JSON: send FP32, or binary data", entry->where,
                         datatype_name(datatype));
    const struct envelope_literal *literal = envelope_claim(&decoder->envelope, data);
    if (!literal)
        return error_set(decoder->err, ERROR_INVALID, "%s: 'data' is not a list of numbers",
                         entry->where);
    entry->input->data = literal->text;
    entry->input->length = literal->length;
    return 0;
}

static int decode_binary_data(struct decoder *decoder, const struct input_entry *entry,
                              size_t bytes)
{
    size_t expected =
        decoder->request->rows * entry->tensor->elements * datatype_bytes(entry->input->datatype);
    if (bytes != expected)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: 'binary_data_size' is %zu, expected %zu (%zu rows of %zu %s)",
                         entry->where, bytes, expected, decoder->request->rows,
                         entry->tensor->elements, datatype_name(entry->input->datatype));
    size_t left = (size_t)(decoder->tail_end - decoder->tail);
    if (bytes > left)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: 'binary_data_size' is %zu, but %zu bytes are left after the JSON: is "
                         "the header Inference-Header-Content-Length right?",
                         entry->where, bytes, left);
    entry->input->binary = true;
    entry->input->data = decoder->tail;
    entry->input->length = bytes;
    decoder->tail += bytes;
    return 0;
}

/* Exactly one of "data" and "binary_data_size" says where the numbers are. */
static int decode_data(struct decoder *decoder, const struct input_entry *entry)
{
    const json_t *data = NULL, *parameters = NULL;
    size_t bytes = SIZE_MAX; /* not given; no member_size is as large */
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

/* Finds which of the model's inputs an entry is. */
static int decode_name(struct decoder *decoder, struct input_entry *entry)
{
    const struct signature *signature = decoder->signature;
    const char *name = NULL;
    if (member_string(entry->object, entry->where, "name", &name, decoder->err) != 0)
        return -1;
    if (!name)
        return member_missing(entry->where, "name", decoder->err);
    size_t index = 0;
    while (index < signature->input_count && strcmp(signature->inputs[index].name, name) != 0)
        index++;
    char known[LISTING_BYTES];
    if (index == signature->input_count)
        return error_set(decoder->err, ERROR_INVALID, "unknown input " QUOTED ": model '%s' has %s",
                         name, signature->model, list_inputs(signature, known));
    entry->tensor = &signature->inputs[index];
    entry->input = &decoder->request->inputs[index];
    snprintf(entry->where, sizeof entry->where, "input " QUOTED, name);
    if (entry->input->where)
        return error_set(decoder->err, ERROR_INVALID, "%s is given twice", entry->where);
    *entry->input = (struct infer_input){.where = "data"};
    return 0;
}

static int decode_input(struct decoder *decoder, const json_t *object, size_t position)
{
    struct input_entry entry = {.object = object};
    snprintf(entry.where, sizeof entry.where, "inputs[%zu]", position);
    if (!json_is_object(object))
        return error_set(decoder->err, ERROR_INVALID, "%s is %s, expected an object", entry.where,
                         member_type(object));
    if (decode_name(decoder, &entry) != 0 || decode_datatype(decoder, &entry) != 0 ||
        decode_shape(decoder, &entry) != 0)
        return -1;
    return decode_data(decoder, &entry);
}

static int decode_inputs(struct decoder *decoder)
{
    const struct signature *signature = decoder->signature;
    const json_t *inputs = NULL;
    if (member_list(decoder->envelope.root, NULL, "inputs", &inputs, decoder->err) != 0)
        return -1;
    if (!inputs)
        return member_missing(NULL, "inputs", decoder->err);
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

/* ---- outputs ---- */

static void request_all_outputs(struct decoder *decoder)
{
    struct infer_request *request = decoder->request;
    request->output_count = decoder->signature->output_count;
    request->outputs = xcalloc(request->output_count, sizeof *request->outputs);
    for (size_t i = 0; i < request->output_count; i++)
        request->outputs[i] = (struct infer_output){
            .source = INFER_OUTPUT,
            .index = i,
            .binary = decoder->binary_output,
        };
}

static int decode_output_name(struct decoder *decoder, const char *name,
                              struct infer_output *requested)
{
    const struct infer_request *request = decoder->request;
    size_t i = 0, count = oip_output_count(decoder->signature);
    struct oip_output output;
    for (; i < count; i++) {
        output = oip_output_at(decoder->signature, i);
        if (oip_output_is_named(&output, name))
            break;
    }
    char known[LISTING_BYTES];
    if (i == count)
        return error_set(decoder->err, ERROR_INVALID,
                         "unknown output " QUOTED ": model '%s' has %s", name,
                         decoder->signature->model, list_outputs(decoder->signature, known));
    for (size_t other = 0; other < request->output_count; other++)
        if (request->outputs[other].source == output.source &&
            request->outputs[other].index == output.index)
            return error_set(decoder->err, ERROR_INVALID, "output " QUOTED " is listed twice",
                             name);
    requested->source = output.source;
    requested->index = output.index;
    return 0;
}

static int decode_output_parameters(struct decoder *decoder, const json_t *object,
                                    const char *where, struct infer_output *requested)
{
    const json_t *parameters = NULL;
    if (member_object(object, where, "parameters", &parameters, decoder->err) != 0 ||
        member_bool(parameters, where, "binary_data", &requested->binary, decoder->err) != 0 ||
        member_size(parameters, where, "classification", &requested->classification,
                    decoder->err) != 0)
        return -1;
    if (json_object_get(parameters, "shared_memory_region"))
        return error_set(decoder->err, ERROR_INVALID, "%s: shared memory is not supported", where);
    if (requested->classification > 0 && requested->source != INFER_OUTPUT)
        return error_set(decoder->err, ERROR_INVALID,
                         "%s: routing is not a classification; leave the parameter out", where);
    return 0;
}

static int decode_output(struct decoder *decoder, const json_t *object, size_t position)
{
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "outputs[%zu]", position);
    if (!json_is_object(object))
        return error_set(decoder->err, ERROR_INVALID, "%s is %s, expected an object", where,
                         member_type(object));
    const char *name = NULL;
    if (member_string(object, where, "name", &name, decoder->err) != 0)
        return -1;
    if (!name)
        return member_missing(where, "name", decoder->err);
    struct infer_output requested = {.binary = decoder->binary_output};
    snprintf(where, sizeof where, "output " QUOTED, name);
    if (decode_output_name(decoder, name, &requested) != 0 ||
        decode_output_parameters(decoder, object, where, &requested) != 0)
        return -1;
    decoder->request->outputs[decoder->request->output_count++] = requested;
    return 0;
}

/* No outputs listed: all the model's own. Routing is answered only when asked for by name. */
static int decode_outputs(struct decoder *decoder)
{
    const json_t *outputs = NULL;
    if (member_list(decoder->envelope.root, NULL, "outputs", &outputs, decoder->err) != 0)
        return -1;
    size_t count = json_array_size(outputs);
    if (count > INFER_MAX_OUTPUTS)
        return error_set(decoder->err, ERROR_INVALID,
                         "'outputs' lists %zu outputs, the limit is %d", count, INFER_MAX_OUTPUTS);
    if (count == 0) {
        request_all_outputs(decoder);
        return 0;
    }
    decoder->request->outputs = xcalloc(count, sizeof *decoder->request->outputs);
    for (size_t i = 0; i < count; i++)
        if (decode_output(decoder, json_array_get(outputs, i), i) != 0)
            return -1;
    return 0;
}

/* ---- the request itself ---- */

static int decode_id(struct decoder *decoder)
{
    const char *id = "";
    if (member_string(decoder->envelope.root, NULL, "id", &id, decoder->err) != 0)
        return -1;
    if (strlen(id) > INFER_MAX_ID_BYTES)
        return error_set(decoder->err, ERROR_INVALID, "'id' has %zu bytes, the limit is %d",
                         strlen(id), INFER_MAX_ID_BYTES);
    if (*id)
        decoder->request->id = xstrdup(id);
    return 0;
}

/* Parameters we do not know are ignored, sequence_* and priority among them: the protocol lets any
 * model have its own. */
static int decode_parameters(struct decoder *decoder)
{
    const json_t *parameters = NULL;
    size_t timeout = 0;
    if (member_object(decoder->envelope.root, NULL, "parameters", &parameters, decoder->err) != 0 ||
        member_bool(parameters, "parameters", "binary_data_output", &decoder->binary_output,
                    decoder->err) != 0 ||
        member_size(parameters, "parameters", "timeout", &timeout, decoder->err) != 0)
        return -1;
    decoder->request->timeout_us = timeout;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)parameters, key, value)
    {
        if (strncmp(key, "triton_", 7) == 0)
            return error_set(decoder->err, ERROR_INVALID,
                             "parameter " QUOTED ": names that begin with 'triton_' are reserved",
                             key);
    }
    return 0;
}

static int decode_request(struct decoder *decoder)
{
    if (decode_id(decoder) != 0 || decode_parameters(decoder) != 0 || decode_inputs(decoder) != 0 ||
        decode_outputs(decoder) != 0)
        return -1;
    if (decoder->tail != decoder->tail_end)
        return error_set(decoder->err, ERROR_INVALID,
                         "%zu bytes after the JSON belong to no input's 'binary_data_size'",
                         (size_t)(decoder->tail_end - decoder->tail));
    return envelope_check_rest(&decoder->envelope, decoder->err);
}

/* Header value 0: the whole body is one row of the only input, and the answer is binary too. */
static int decode_raw(struct decoder *decoder, const char *body, size_t length)
{
    const struct signature *signature = decoder->signature;
    size_t expected = signature->inputs[0].elements * datatype_bytes(DATATYPE_FP32);
    if (signature->input_count != 1 || length != expected)
        return error_set(
            decoder->err, ERROR_INVALID,
            "Inference-Header-Content-Length is 0, so the body should be one row of the "
            "only input as FP32: it has %zu bytes, model '%s' has %zu inputs, one row "
            "of the first takes %zu bytes",
            length, signature->model, signature->input_count, expected);
    decoder->binary_output = true;
    decoder->request->rows = 1;
    decoder->request->inputs = xcalloc(1, sizeof *decoder->request->inputs);
    decoder->request->inputs[0] = (struct infer_input){
        .where = "data",
        .data = body,
        .length = length,
        .binary = true,
        .datatype = DATATYPE_FP32,
    };
    request_all_outputs(decoder);
    return 0;
}

/* Leaves *json_length alone without the header: then the body is all JSON. */
static int decode_header_length(const char *text, size_t length, size_t *json_length,
                                struct error *err)
{
    size_t value = 0, digits = text ? strspn(text, "0123456789") : 0;
    for (size_t i = 0; i < digits && value <= length; i++)
        value = value * 10 + (size_t)(text[i] - '0');
    if (text && (digits == 0 || text[digits] != '\0' || value > length))
        return error_set(err, ERROR_INVALID,
                         "Inference-Header-Content-Length is " QUOTED
                         ", expected a number from 0 to the %zu bytes of the body",
                         text, length);
    if (text)
        *json_length = value;
    return 0;
}

int oip_decode(const struct signature *signature, const char *body, size_t length,
               const char *header_length, const struct infer_limits *limits,
               struct infer_request *request, struct error *err)
{
    *request = (struct infer_request){.signature = signature, .body = body};
    struct decoder decoder = {
        .signature = signature, .limits = limits, .request = request, .err = err};
    size_t json_length = length;
    if (decode_header_length(header_length, length, &json_length, err) != 0)
        return -1;
    if (json_length == 0 && header_length)
        return decode_raw(&decoder, body, length);
    decoder.tail = body + json_length;
    decoder.tail_end = body + length;
    if (envelope_init(&decoder.envelope, body, json_length, err) != 0)
        return -1;
    int result = decode_request(&decoder);
    envelope_close(&decoder.envelope);
    if (result != 0)
        infer_request_close(request);
    return result;
}

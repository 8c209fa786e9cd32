/* Reads ModelInferRequest: its tensors where they lie, all else as the JSON of the same request.
 *
 * The JSON is bounded like that of a request over HTTP without its tensors, so a message of a
 * million small fields is refused before it costs a multiple of its size. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/grpc.h"
#include "proto/grpc_contents.h"
#include "proto/grpc_infer.h"
#include "proto/grpc_parameters.h"
#include "proto/json.h"

/* ModelInferRequest; InferInputTensor; InferRequestedOutputTensor. */
enum { ID = 3, PARAMETERS = 4, INPUTS = 5, OUTPUTS = 6, RAW_INPUT_CONTENTS = 7 };
enum { INPUT_NAME = 1, INPUT_DATATYPE, INPUT_SHAPE, INPUT_PARAMETERS, INPUT_CONTENTS };
enum { OUTPUT_NAME = 1, OUTPUT_PARAMETERS };

/* A request while it is decoded. */
struct decoder {
    const struct signature *signature;
    const struct infer_limits *limits;
    struct wire_reader message; /* at its beginning */
    struct buffer json;
    size_t input_count, raw_count; /* of the request */
    struct oip_tensor *tensors;    /* [input_count] */
    char **owned;                  /* [input_count] bytes of tensors that are not in the message */
    struct error *err;
};

/* Reads on to the next field with this number, which is of bytes: 1, 0 at the end, or -1. */
static int next_numbered(struct decoder *decoder, struct wire_reader *reader, uint32_t number,
                         struct wire_field *field)
{
    int more;
    while ((more = wire_next(reader, field, decoder->err)) == 1 && field->number != number)
        ;
    if (more == 1 &&
        wire_check_type(field, WIRE_BYTES, "a field of the request", decoder->err) != 0)
        return -1;
    return more;
}

/* ---- parameters, and the fields that are strings ---- */

/* Appends all entries of a map as members, but the one named `ignored`, and the end of the object.
 * `first`: there is no member yet. */
static int append_parameters(struct decoder *decoder, struct wire_reader reader, uint32_t number,
                             bool first, const char *ignored)
{
    struct wire_field entry;
    bool labels = reader.cursor == decoder->message.cursor; /* those of the request itself */
    int more;
    while ((more = next_numbered(decoder, &reader, number, &entry)) == 1) {
        if (ignored && grpc_parameter_is(&reader, &entry, ignored))
            continue;
        if (grpc_append_parameter(&reader, &entry, labels, first, &decoder->json, decoder->err) !=
            0)
            return -1;
        first = false;
    }
    buffer_text(&decoder->json, "}");
    return more;
}

/* Appends the last of the string fields with this number as a member; none is "". */
static int append_member(struct decoder *decoder, struct wire_reader reader, uint32_t number,
                         const char *key)
{
    struct wire_field field, last = {.type = WIRE_BYTES, .bytes = ""};
    int more;
    while ((more = next_numbered(decoder, &reader, number, &field)) == 1)
        last = field;
    if (more < 0)
        return -1;
    buffer_format(&decoder->json, "\"%s\":", key);
    return grpc_append_string(&last, key, &decoder->json, decoder->err);
}

/* ---- inputs ---- */

/* An input's fields, and which of them it has. */
struct input {
    struct wire_reader message;
    struct wire_field name, datatype, contents; /* number 0: absent */
};

static int read_input(struct decoder *decoder, struct wire_reader reader, struct input *input)
{
    struct wire_field field;
    int more;
    *input = (struct input){.message = reader};
    while ((more = wire_next(&reader, &field, decoder->err)) == 1) {
        struct wire_field *place = field.number == INPUT_NAME       ? &input->name
                                   : field.number == INPUT_DATATYPE ? &input->datatype
                                   : field.number == INPUT_CONTENTS ? &input->contents
                                                                    : NULL;
        if (!place)
            continue;
        if (wire_check_type(&field, WIRE_BYTES, "a field of an input", decoder->err) != 0)
            return -1;
        if (place == &input->contents && place->number)
            return error_set(decoder->err, ERROR_INVALID, "an input has 'contents' twice");
        *place = field;
    }
    return more;
}

static int append_dims(struct decoder *decoder, const struct wire_reader *outer,
                       const struct wire_field *field, size_t *count)
{
    struct wire_reader packed = wire_reader_of(outer, field);
    uint64_t dim = field->value;
    int more = 1;
    if (field->type != WIRE_VARINT && field->type != WIRE_BYTES)
        return wire_check_type(field, WIRE_BYTES, "'shape'", decoder->err);
    while (field->type == WIRE_VARINT ||
           (more = wire_next_varint(&packed, &dim, decoder->err)) == 1) {
        if ((*count)++ < INFER_MAX_AXES + 1) /* more are wrong, whatever they are */
            buffer_format(&decoder->json, "%s%lld", *count > 1 ? "," : "", (long long)dim);
        if (field->type == WIRE_VARINT)
            break;
    }
    return more < 0 ? -1 : 0;
}

static int append_shape(struct decoder *decoder, struct wire_reader reader)
{
    struct wire_field field;
    size_t count = 0;
    int more;
    buffer_text(&decoder->json, ",\"shape\":[");
    while ((more = wire_next(&reader, &field, decoder->err)) == 1)
        if (field.number == INPUT_SHAPE && append_dims(decoder, &reader, &field, &count) != 0)
            return -1;
    buffer_text(&decoder->json, "]");
    return more;
}

static bool is_text(const struct wire_field *field, const char *text)
{
    return field->number && field->length == strlen(text) &&
           memcmp(field->bytes, text, field->length) == 0;
}

static enum datatype datatype_of(const struct wire_field *field)
{
    for (int i = 0; i < DATATYPE_COUNT; i++)
        if (is_text(field, datatype_name((enum datatype)i)))
            return (enum datatype)i;
    return DATATYPE_COUNT;
}

/* Elements that the named input has in the largest request: bounds the memory for its contents. */
static size_t most_elements(const struct decoder *decoder, const struct input *input)
{
    const struct signature *signature = decoder->signature;
    for (size_t i = 0; i < signature->input_count; i++)
        if (is_text(&input->name, signature->inputs[i].name))
            return decoder->limits->max_rows * signature->inputs[i].elements;
    return 0;
}

/* Finds the input's bytes, and says in `datatype` what they are. Those of an input that cannot be
 * right are left out: the decoder of the JSON says what is wrong with it. */
static int read_tensor(struct decoder *decoder, const struct input *input, size_t index,
                       enum datatype *datatype)
{
    struct oip_tensor *tensor = &decoder->tensors[index];
    size_t most = most_elements(decoder, input);
    bool readable = most > 0 && *datatype != DATATYPE_COUNT &&
                    (*datatype == DATATYPE_BYTES || datatype_is_numeric(*datatype));
    if (tensor->bytes) /* raw */
        return input->contents.number
                   ? error_set(decoder->err, ERROR_INVALID,
                               "inputs[%zu] has 'contents' beside raw_input_contents: send one of "
                               "them",
                               index)
                   : 0;
    tensor->bytes = "";
    if (!input->contents.number)
        return error_set(decoder->err, ERROR_INVALID,
                         "inputs[%zu] has neither 'contents' nor raw_input_contents", index);
    if (!readable || index >= decoder->signature->input_count)
        return 0;
    if (grpc_read_contents(wire_reader_of(&input->message, &input->contents), datatype, most,
                           tensor, &decoder->owned[index], decoder->err) == 0)
        return 0;
    error_prefix(decoder->err, "inputs[%zu]", index);
    return -1;
}

static int append_input(struct decoder *decoder, struct wire_reader reader, size_t index)
{
    struct input input;
    struct buffer *json = &decoder->json;
    if (read_input(decoder, reader, &input) != 0)
        return -1;
    enum datatype datatype = datatype_of(&input.datatype);
    if (read_tensor(decoder, &input, index, &datatype) != 0)
        return -1;
    buffer_text(json, index > 0 ? ",{" : "{");
    if (append_member(decoder, reader, INPUT_NAME, "name") != 0)
        return -1;
    if (datatype != DATATYPE_COUNT) {
        buffer_format(json, ",\"datatype\":\"%s\"", datatype_name(datatype));
    } else {
        buffer_text(json, ",");
        if (append_member(decoder, reader, INPUT_DATATYPE, "datatype") != 0)
            return -1;
    }
    if (append_shape(decoder, reader) != 0)
        return -1;
    buffer_format(json, ",\"parameters\":{\"binary_data_size\":%zu",
                  decoder->tensors[index].length);
    /* KServe's client sends the size, too: how long the tensor is, is what counts. */
    if (append_parameters(decoder, reader, INPUT_PARAMETERS, false, "binary_data_size") != 0)
        return -1;
    buffer_text(json, "}");
    return 0;
}

/* Counts inputs and raw tensors, and checks that they can belong together. */
static int count_tensors(struct decoder *decoder)
{
    struct wire_reader reader = decoder->message;
    struct wire_field field;
    int more;
    while ((more = wire_next(&reader, &field, decoder->err)) == 1) {
        decoder->input_count += field.number == INPUTS;
        decoder->raw_count += field.number == RAW_INPUT_CONTENTS;
    }
    if (more < 0)
        return -1;
    if (decoder->input_count > ENVELOPE_MAX_LITERALS / 2)
        return error_set(decoder->err, ERROR_INVALID, "the request has %zu inputs, the limit is %d",
                         decoder->input_count, ENVELOPE_MAX_LITERALS / 2);
    if (decoder->raw_count > 0 && decoder->raw_count != decoder->input_count)
        return error_set(decoder->err, ERROR_INVALID,
                         "raw_input_contents has %zu tensor%s, expected one for each input: %zu",
                         decoder->raw_count, text_s(decoder->raw_count), decoder->input_count);
    decoder->tensors = xcalloc(decoder->input_count + 1, sizeof *decoder->tensors);
    decoder->owned = xcalloc(decoder->input_count + 1, sizeof *decoder->owned);
    return 0;
}

static int find_raw_tensors(struct decoder *decoder)
{
    struct wire_reader reader = decoder->message;
    struct wire_field field;
    int more;
    for (size_t i = 0; (more = next_numbered(decoder, &reader, RAW_INPUT_CONTENTS, &field)) == 1;
         i++)
        decoder->tensors[i] = (struct oip_tensor){field.bytes, field.length};
    return more;
}

/* Appends the list of inputs or outputs. */
static int append_list(struct decoder *decoder, uint32_t number,
                       int (*append)(struct decoder *decoder, struct wire_reader reader,
                                     size_t index))
{
    struct wire_reader reader = decoder->message;
    struct wire_field field;
    size_t index = 0;
    int more;
    buffer_text(&decoder->json, "[");
    while ((more = next_numbered(decoder, &reader, number, &field)) == 1) {
        if (append(decoder, wire_reader_of(&reader, &field), index++) != 0)
            return -1;
        if (decoder->json.failed)
            break; /* too long, which is said at the end */
    }
    buffer_text(&decoder->json, "]");
    return more < 0 ? -1 : 0;
}

/* ---- outputs ---- */

static int append_output(struct decoder *decoder, struct wire_reader reader, size_t index)
{
    buffer_text(&decoder->json, index > 0 ? ",{" : "{");
    if (append_member(decoder, reader, OUTPUT_NAME, "name") != 0)
        return -1;
    buffer_text(&decoder->json, ",\"parameters\":{");
    if (append_parameters(decoder, reader, OUTPUT_PARAMETERS, true, NULL) != 0)
        return -1;
    buffer_text(&decoder->json, "}");
    return 0;
}

/* ---- the request ---- */

static int write_json(struct decoder *decoder)
{
    struct buffer *json = &decoder->json;
    if (count_tensors(decoder) != 0 || find_raw_tensors(decoder) != 0)
        return -1;
    buffer_text(json, "{");
    if (append_member(decoder, decoder->message, ID, "id") != 0)
        return -1;
    buffer_text(json, ",\"parameters\":{");
    /* perf_analyzer always asks for an empty last response, which only streams have. */
    if (append_parameters(decoder, decoder->message, PARAMETERS, true,
                          "triton_enable_empty_final_response") != 0)
        return -1;
    buffer_text(json, ",\"inputs\":");
    if (append_list(decoder, INPUTS, append_input) != 0)
        return -1;
    buffer_text(json, ",\"outputs\":");
    if (append_list(decoder, OUTPUTS, append_output) != 0)
        return -1;
    buffer_text(json, "}");
    if (json->failed)
        return buffer_error(json, "what the request has beside its tensors",
                            "send fewer or shorter parameters", decoder->err);
    return 0;
}

/* The request frees what its inputs point into. */
static void give_owned(struct decoder *decoder, struct infer_request *request)
{
    size_t given = 0, count = decoder->signature->input_count;
    request->texts = xcalloc(count, sizeof *request->texts);
    for (size_t i = 0; i < decoder->input_count && given < count; i++)
        if (decoder->owned[i]) {
            request->texts[given++] = decoder->owned[i];
            decoder->owned[i] = NULL;
        }
}

int grpc_infer_decode(const struct signature *signature, const struct infer_body *body,
                      const struct infer_limits *limits, struct infer_request *request,
                      struct error *err)
{
    struct decoder decoder = {.signature = signature, .limits = limits, .err = err};
    wire_reader_init(&decoder.message, body->bytes, body->length);
    buffer_init(&decoder.json, ENVELOPE_MAX_BYTES);
    int result = write_json(&decoder);
    if (result == 0)
        result = oip_decode_with_tensors(signature, &decoder.json, decoder.tensors, limits, request,
                                         err);
    if (result == 0)
        give_owned(&decoder, request);
    for (size_t i = 0; decoder.owned && i < decoder.input_count; i++)
        free(decoder.owned[i]);
    free(decoder.owned);
    free(decoder.tensors);
    buffer_close(&decoder.json);
    return result;
}

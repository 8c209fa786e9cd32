/* Encodes answers of the Open Inference Protocol: JSON, then binary tensors. */
#include "proto/oip_encode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/json.h"
#include "proto/number.h"
#include "proto/oip.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "binary tensors are little-endian and copied as they are");

/* An answer while it is encoded. */
struct encoder {
    const struct infer_request *request;
    const struct infer_result *result;
    struct buffer *json;
    struct buffer *binary; /* sent after the JSON */
};

/* ---- classification: the n largest values of a row as "value:index[:label]" ---- */

struct scored_class {
    float score; /* a NaN ranks as -infinity */
    size_t class;
};

/* Best first; the lower index wins a tie. */
static int compare_classes(const void *left, const void *right)
{
    const struct scored_class *a = left, *b = right;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->class < b->class ? -1 : a->class > b->class;
}

static void rank_classes(const float *values, size_t count, struct scored_class *ranking)
{
    for (size_t i = 0; i < count; i++)
        ranking[i] = (struct scored_class){isnan(values[i]) ? -INFINITY : values[i], i};
    qsort(ranking, count, sizeof *ranking, compare_classes);
}

/* Labels name the last axis of an output: they apply only if a row has no other axis. */
static const char *class_label(const struct encoder *encoder, const struct oip_output *output,
                               size_t class)
{
    const struct signature *signature = encoder->request->signature;
    const struct signature_tensor *tensor = &signature->outputs[output->index];
    return tensor->label_count == output->elements ? tensor->labels[class] : NULL;
}

static void append_class(const struct encoder *encoder, const struct oip_output *output,
                         const float *values, size_t class, struct buffer *text)
{
    char number[NUMBER_FORMAT_BYTES];
    buffer_append(text, number, number_format(number, values[class]));
    buffer_format(text, ":%zu", class);
    const char *label = class_label(encoder, output, class);
    if (label) {
        buffer_text(text, ":");
        buffer_text(text, label);
    }
}

/* Writes one class string in the answer's form: a JSON string, or a length and bytes. */
static void put_class(struct encoder *encoder, struct buffer *text, bool binary, bool first)
{
    if (binary) {
        uint32_t length = (uint32_t)text->length;
        buffer_append(encoder->binary, &length, sizeof length);
        buffer_append(encoder->binary, text->data, text->length);
    } else {
        buffer_append(text, "", 1);
        buffer_text(encoder->json, first ? "" : ",");
        if (!text->failed)
            json_append_string(encoder->json, text->data);
    }
    encoder->json->failed |= text->failed;
    encoder->json->no_memory |= text->no_memory;
    text->length = 0;
}

static void encode_classes(struct encoder *encoder, const struct oip_output *output, size_t top,
                           bool binary)
{
    const float *values = encoder->result->outputs[output->index];
    struct scored_class *ranking = xmalloc(output->elements * sizeof *ranking);
    struct buffer text;
    buffer_init(&text, encoder->json->limit);
    for (size_t row = 0; row < encoder->request->rows; row++, values += output->elements) {
        rank_classes(values, output->elements, ranking);
        for (size_t i = 0; i < top; i++) {
            append_class(encoder, output, values, ranking[i].class, &text);
            put_class(encoder, &text, binary, row == 0 && i == 0);
        }
    }
    buffer_close(&text);
    free(ranking);
}

/* ---- numbers ---- */

static const void *result_values(const struct encoder *encoder, const struct oip_output *output)
{
    switch (output->source) {
    case INFER_OUTPUT:
        return encoder->result->outputs[output->index];
    case INFER_ROUTING_EXPERTS:
        return encoder->result->routing_experts[output->index];
    case INFER_ROUTING_WEIGHTS:
        return encoder->result->routing_weights[output->index];
    case INFER_ROUTING_PROBABILITIES:
        return encoder->result->routing_probabilities[output->index];
    }
    return NULL;
}

static void encode_numbers(struct encoder *encoder, const struct oip_output *output, bool binary)
{
    const void *values = result_values(encoder, output);
    size_t count = encoder->request->rows * output->elements;
    if (binary)
        buffer_append(encoder->binary, values, count * datatype_bytes(output->datatype));
    else if (output->datatype == DATATYPE_INT32)
        json_append_integers(encoder->json, values, count);
    else
        json_append_floats(encoder->json, values, count);
}

struct oip_output oip_answered(const struct infer_request *request,
                               const struct infer_output *requested, size_t *top)
{
    struct oip_output output = oip_output_of(request->signature, requested);
    *top =
        requested->classification < output.elements ? requested->classification : output.elements;
    if (*top == 0)
        return output;
    output.datatype = DATATYPE_BYTES;
    output.dims[0] = *top;
    output.rank = 1;
    return output;
}

void oip_append_binary(const struct infer_request *request, const struct infer_result *result,
                       const struct infer_output *requested, struct buffer *binary)
{
    size_t top;
    struct buffer none;
    buffer_init(&none, binary->limit);
    struct encoder encoder = {request, result, &none, binary};
    struct oip_output output = oip_answered(request, requested, &top);
    if (top > 0)
        encode_classes(&encoder, &output, top, true);
    else
        encode_numbers(&encoder, &output, true);
    binary->failed |= none.failed;
    binary->no_memory |= none.no_memory;
}

/* ---- the answer ---- */

/* The C++ client takes any "parameters" of an output as a sign of binary data, so a JSON output has
 * none. Its data is flat because that client cannot read nested lists. */
static void encode_output(struct encoder *encoder, const struct infer_output *requested)
{
    size_t top;
    struct oip_output output = oip_answered(encoder->request, requested, &top);
    char rows[24];
    snprintf(rows, sizeof rows, "%zu", encoder->request->rows);
    oip_append_name(encoder->json, &output);
    buffer_format(encoder->json, ",\"datatype\":\"%s\",\"shape\":", datatype_name(output.datatype));
    oip_append_shape(encoder->json, rows, output.dims, output.rank);

    size_t binary_before = encoder->binary->length;
    if (!requested->binary)
        buffer_text(encoder->json, ",\"data\":[");
    if (top > 0)
        encode_classes(encoder, &output, top, requested->binary);
    else
        encode_numbers(encoder, &output, requested->binary);
    if (!requested->binary)
        buffer_text(encoder->json, "]}");
    else
        buffer_format(encoder->json, ",\"parameters\":{\"binary_data_size\":%zu}}",
                      encoder->binary->length - binary_before);
}

static void encode_head(struct encoder *encoder)
{
    struct buffer *json = encoder->json;
    buffer_text(json, "{");
    if (encoder->request->id) {
        buffer_text(json, "\"id\":");
        json_append_string(json, encoder->request->id);
        buffer_text(json, ",");
    }
    buffer_text(json, "\"model_name\":");
    json_append_string(json, encoder->request->signature->model);
    buffer_text(json, ",\"model_version\":");
    json_append_string(json, encoder->request->signature->version);
    if (encoder->request->overrides.text) {
        buffer_text(json, ",\"parameters\":{\"experts\":");
        json_append_string(json, encoder->request->overrides.text);
        buffer_text(json, "}");
    }
}

int oip_encode(const struct infer_request *request, const struct infer_result *result,
               struct buffer *body, size_t *json_length, struct error *err)
{
    struct buffer binary;
    buffer_init(&binary, body->limit);
    struct encoder encoder = {request, result, body, &binary};
    size_t start = body->length;
    encode_head(&encoder);
    buffer_text(body, ",\"outputs\":[");
    for (size_t i = 0; i < request->output_count; i++) {
        if (i > 0)
            buffer_text(body, ",");
        encode_output(&encoder, &request->outputs[i]);
    }
    buffer_text(body, "]}");
    *json_length = binary.length > 0 ? body->length - start : 0;
    buffer_append(body, binary.data, binary.length);
    int status = 0;
    if (body->failed || binary.failed)
        status = buffer_error(body->failed ? body : &binary, "the answer",
                              "ask for fewer rows or outputs", err);
    buffer_close(&binary);
    return status;
}

const struct protocol protocol_oip = {"oip", oip_decode, oip_encode};

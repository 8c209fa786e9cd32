/* Decodes inference requests of the Open Inference Protocol.
 *
 * The body is JSON, then the binary tensors in the order of the inputs that announce them.
 * Everything is checked here except the numbers, which infer_reader checks as it reads them. */
#include "proto/oip_decode.h"

#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/annotation.h"
#include "proto/members.h"
#include "proto/oip.h"
#include "proto/overrides.h"

static int decode_id(struct oip_decoder *decoder)
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

/* Unknown parameters are ignored, such as sequence_*: the protocol allows every model its own. */
static int decode_parameters(struct oip_decoder *decoder)
{
    static const char *const NAMES[] = {"binary_data_output", "tag", "labels", "experts", "timeout",
                                        "priority",           NULL};
    const json_t *parameters = NULL;
    size_t timeout = 0, priority = 0;
    if (member_object(decoder->envelope.root, NULL, "parameters", &parameters, decoder->err) != 0 ||
        member_check_spelling(parameters, "parameters", NAMES, decoder->err) != 0 ||
        member_bool(parameters, "parameters", "binary_data_output", &decoder->binary_output,
                    decoder->err) != 0 ||
        annotation_read_tag(parameters, "parameters", decoder->request, decoder->err) != 0 ||
        overrides_read_parameter(parameters, decoder->request, decoder->err) != 0 ||
        member_size(parameters, "parameters", "timeout", &timeout, decoder->err) != 0 ||
        member_size(parameters, "parameters", "priority", &priority, decoder->err) != 0)
        return -1;
    decoder->request->timeout_us = timeout;
    decoder->request->priority = priority;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)parameters, key, value) {
        if (strncmp(key, "triton_", 7) == 0)
            return error_set(decoder->err, ERROR_INVALID,
                             "parameter " QUOTED ": names that begin with 'triton_' are reserved",
                             key);
    }
    return 0;
}

static int decode_request(struct oip_decoder *decoder)
{
    static const char *const NAMES[] = {"id", "parameters", "inputs", "outputs", NULL};
    if (member_check_spelling(decoder->envelope.root, NULL, NAMES, decoder->err) != 0 ||
        decode_id(decoder) != 0 || decode_parameters(decoder) != 0 ||
        oip_decode_inputs(decoder) != 0 || oip_decode_outputs(decoder) != 0 ||
        annotation_read_labels(&decoder->envelope,
                               json_object_get(decoder->envelope.root, "parameters"),
                               decoder->request, decoder->err) != 0)
        return -1;
    if (decoder->tail != decoder->tail_end)
        return error_set(decoder->err, ERROR_INVALID,
                         "%zu byte%s after the JSON beyond every input's 'binary_data_size'",
                         (size_t)(decoder->tail_end - decoder->tail),
                         text_s((size_t)(decoder->tail_end - decoder->tail)));
    return envelope_check_rest(&decoder->envelope, decoder->err);
}

/* Header value 0: the whole body is one row of the only input, and the answer is binary too. */
static int decode_raw(struct oip_decoder *decoder, const char *body, size_t length)
{
    const struct signature *signature = decoder->signature;
    size_t expected = signature->inputs[0].elements * datatype_bytes(DATATYPE_FP32);
    if (signature->input_count != 1 || length != expected)
        return error_set(
            decoder->err, ERROR_INVALID,
            "Inference-Header-Content-Length is 0, so the body should be one row of the "
            "only input as FP32: it has %zu bytes, model '%s' has %zu input%s, one row "
            "of the first takes %zu byte%s",
            length, signature->model, signature->input_count, text_s(signature->input_count),
            expected, text_s(expected));
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
    oip_request_all_outputs(decoder);
    return 0;
}

/* Without the header the whole body is JSON, and *json_length stays. */
static int decode_header_length(const char *text, size_t length, size_t *json_length,
                                struct error *err)
{
    uint64_t value = 0;
    const char *end = text ? text_whole_number(text, &value) : NULL;
    if (text && (!end || *end != '\0' || value > length))
        return error_set(err, ERROR_INVALID,
                         "Inference-Header-Content-Length is " QUOTED
                         ", expected a number from 0 to the %zu bytes of the body",
                         text, length);
    if (text)
        *json_length = value;
    return 0;
}

static int decode_json(struct oip_decoder *decoder, const char *json, size_t length)
{
    if (envelope_init(&decoder->envelope, json, length, decoder->err) != 0)
        return -1;
    int result = decode_request(decoder);
    envelope_close(&decoder->envelope);
    if (result != 0)
        infer_request_close(decoder->request);
    return result;
}

int oip_decode_with_tensors(const struct signature *signature, const struct buffer *json,
                            const struct oip_tensor *tensors, const struct infer_limits *limits,
                            struct infer_request *request, struct error *err)
{
    *request = (struct infer_request){.signature = signature, .non_finite = limits->non_finite};
    struct oip_decoder decoder = {.signature = signature,
                                  .limits = limits,
                                  .request = request,
                                  .tensors = tensors,
                                  .err = err};
    return decode_json(&decoder, json->data, json->length);
}

int oip_decode(const struct signature *signature, const struct infer_body *body,
               const struct infer_limits *limits, struct infer_request *request, struct error *err)
{
    *request = (struct infer_request){
        .signature = signature, .body = body->bytes, .non_finite = limits->non_finite};
    struct oip_decoder decoder = {
        .signature = signature, .limits = limits, .request = request, .err = err};
    size_t json_length = body->length;
    if (decode_header_length(body->json_length, body->length, &json_length, err) != 0)
        return -1;
    if (json_length == 0 && body->json_length)
        return decode_raw(&decoder, body->bytes, body->length);
    decoder.tail = body->bytes + json_length;
    decoder.tail_end = body->bytes + body->length;
    return decode_json(&decoder, body->bytes, json_length);
}

/* Writes ModelInferResponse. Results are copied once, into the answer. */
#include "proto/grpc.h"
#include "proto/grpc_infer.h"
#include "proto/oip_encode.h"
#include "proto/wire.h"

/* ModelInferResponse; InferOutputTensor. */
enum { MODEL_NAME = 1, MODEL_VERSION, ID, PARAMETERS, OUTPUTS, RAW_OUTPUT_CONTENTS };
enum { OUTPUT_NAME = 1, OUTPUT_DATATYPE, OUTPUT_SHAPE };

/* A part that is written beside the message, because its length comes first. */
enum { PART_BYTES = 4096 };

static void append_part(struct buffer *message, uint32_t field, struct buffer *part)
{
    wire_append_bytes(message, field, part->data, part->length);
    message->failed |= part->failed;
    message->no_memory |= part->no_memory;
    buffer_close(part);
}

/* The request's "experts", which the answer carries back. */
static void append_experts(struct buffer *message, const char *text)
{
    struct buffer value, entry;
    buffer_init(&value, message->limit);
    buffer_init(&entry, message->limit);
    wire_append_text(&value, 3, text); /* string_param */
    wire_append_text(&entry, 1, "experts");
    append_part(&entry, 2, &value);
    append_part(message, PARAMETERS, &entry);
}

static void append_output(struct buffer *message, const struct infer_request *request,
                          const struct infer_output *requested)
{
    size_t top;
    struct oip_output output = oip_answered(request, requested, &top);
    struct buffer part, piece;
    buffer_init(&part, PART_BYTES);
    buffer_init(&piece, PART_BYTES);
    for (int i = 0; i < 3; i++)
        buffer_text(&piece, output.name[i]);
    append_part(&part, OUTPUT_NAME, &piece);
    wire_append_text(&part, OUTPUT_DATATYPE, datatype_name(output.datatype));
    buffer_init(&piece, PART_BYTES);
    wire_append_varint(&piece, request->rows);
    for (size_t axis = 0; axis < output.rank; axis++)
        wire_append_varint(&piece, output.dims[axis]);
    append_part(&part, OUTPUT_SHAPE, &piece);
    append_part(message, OUTPUTS, &part);
}

/* Numbers go straight into the message; strings first elsewhere, until their length is known. */
static void append_tensor(struct buffer *message, const struct infer_request *request,
                          const struct infer_result *result, const struct infer_output *requested)
{
    size_t top;
    struct oip_output output = oip_answered(request, requested, &top);
    struct buffer part;
    if (top == 0) {
        wire_append_head(message, RAW_OUTPUT_CONTENTS,
                         request->rows * output.elements * datatype_bytes(output.datatype));
        oip_append_binary(request, result, requested, message);
        return;
    }
    buffer_init(&part, message->limit);
    oip_append_binary(request, result, requested, &part);
    append_part(message, RAW_OUTPUT_CONTENTS, &part);
}

static int encode(const struct infer_request *request, const struct infer_result *result,
                  struct buffer *message, size_t *json_length, struct error *err)
{
    *json_length = 0;
    wire_append_text(message, MODEL_NAME, request->signature->model);
    wire_append_text(message, MODEL_VERSION, request->signature->version);
    if (request->id)
        wire_append_text(message, ID, request->id);
    if (request->overrides.text)
        append_experts(message, request->overrides.text);
    for (size_t i = 0; i < request->output_count; i++)
        append_output(message, request, &request->outputs[i]);
    for (size_t i = 0; i < request->output_count; i++)
        append_tensor(message, request, result, &request->outputs[i]);
    if (message->failed)
        return buffer_error(message, "the answer", "ask for fewer rows or outputs", err);
    return 0;
}

const struct protocol protocol_grpc = {"grpc", grpc_infer_decode, encode};

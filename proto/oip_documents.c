/* The Open Inference Protocol's documents: server metadata, model metadata, model configuration. */
#include <inttypes.h>

#include "proto/json.h"
#include "proto/oip.h"
#include "proto/oip_outputs.h"
#include "proto/words.h"

void oip_server_metadata(const char *version, struct buffer *body)
{
    buffer_text(body, "{\"name\":\"moed\",\"version\":");
    json_append_string(body, version);
    buffer_text(body,
                ",\"extensions\":[\"binary_tensor_data\",\"classification\",\"model_"
                "configuration\",\"model_repository\",\"statistics\",\"logging\",\"trace\"]}");
}

/* The datatype that clients should send; others that hold the same numbers are accepted too. */
static const char *input_datatype(const struct signature_tensor *input)
{
    if (input->words)
        return datatype_name(DATATYPE_BYTES);
    return datatype_name(input->categories ? DATATYPE_INT32 : DATATYPE_FP32);
}

static void append_texts(struct buffer *body, const char *const *texts, size_t count)
{
    buffer_text(body, "[");
    for (size_t i = 0; i < count; i++) {
        buffer_text(body, i > 0 ? "," : "");
        json_append_string(body, texts[i]);
    }
    buffer_text(body, "]");
}

/* What the input's values may be, beside numbers. */
static void append_values(const struct signature_tensor *input, struct buffer *body)
{
    if (input->categories == 0 && !input->has_missing)
        return;
    buffer_text(body, ",\"parameters\":{");
    if (input->categories > 0)
        buffer_format(body, "\"categories\":%zu", input->categories);
    if (input->words) {
        buffer_text(body, ",\"words\":");
        append_texts(body, input->words->list, input->words->count);
    }
    if (input->has_unknown)
        buffer_format(body, ",\"unknown\":%" PRId32, input->unknown);
    if (input->has_missing) {
        buffer_text(body, input->categories > 0 ? ",\"missing\":" : "\"missing\":");
        json_append_double(body, input->missing);
    }
    buffer_text(body, "}");
}

static void append_metadata_inputs(const struct signature *signature, struct buffer *body)
{
    for (size_t i = 0; i < signature->input_count; i++) {
        const struct signature_tensor *input = &signature->inputs[i];
        buffer_text(body, i > 0 ? ",{\"name\":" : "{\"name\":");
        json_append_string(body, input->name);
        buffer_format(body, ",\"datatype\":\"%s\",\"shape\":", input_datatype(input));
        oip_append_shape(body, "-1", input->dims, input->rank);
        append_values(input, body);
        buffer_text(body, "}");
    }
}

static void append_labels(const struct signature *signature, const struct oip_output *output,
                          struct buffer *body)
{
    const struct signature_tensor *tensor = &signature->outputs[output->index];
    if (output->source != INFER_OUTPUT || tensor->label_count == 0)
        return;
    buffer_text(body, ",\"parameters\":{\"labels\":");
    append_texts(body, tensor->labels, tensor->label_count);
    buffer_text(body, "}");
}

/* The routing outputs are listed too, so that clients can find them. */
static void append_metadata_outputs(const struct signature *signature, struct buffer *body)
{
    for (size_t i = 0; i < oip_output_count(signature); i++) {
        struct oip_output output = oip_output_at(signature, i);
        if (i > 0)
            buffer_text(body, ",");
        oip_append_name(body, &output);
        buffer_format(body, ",\"datatype\":\"%s\",\"shape\":", datatype_name(output.datatype));
        oip_append_shape(body, "-1", output.dims, output.rank);
        append_labels(signature, &output, body);
        buffer_text(body, "}");
    }
}

void oip_model_metadata(const struct signature *signature, const char *const *versions,
                        size_t version_count, struct buffer *body)
{
    buffer_text(body, "{\"name\":");
    json_append_string(body, signature->model);
    buffer_text(body, ",\"versions\":[");
    for (size_t i = 0; i < version_count; i++) {
        if (i > 0)
            buffer_text(body, ",");
        json_append_string(body, versions[i]);
    }
    buffer_text(body, "],\"platform\":\"moed\",\"inputs\":[");
    append_metadata_inputs(signature, body);
    buffer_text(body, "],\"outputs\":[");
    append_metadata_outputs(signature, body);
    buffer_text(body, "]}");
}

static void append_config_inputs(const struct signature *signature, struct buffer *body)
{
    for (size_t i = 0; i < signature->input_count; i++) {
        const struct signature_tensor *input = &signature->inputs[i];
        buffer_text(body, i > 0 ? ",{\"name\":" : "{\"name\":");
        json_append_string(body, input->name);
        buffer_format(body, ",\"data_type\":\"TYPE_%s\",\"dims\":",
                      input->words ? "STRING" : input_datatype(input));
        oip_append_shape(body, NULL, input->dims, input->rank);
        buffer_text(body, "}");
    }
}

static void append_config_outputs(const struct signature *signature, struct buffer *body)
{
    for (size_t i = 0; i < oip_output_count(signature); i++) {
        struct oip_output output = oip_output_at(signature, i);
        if (i > 0)
            buffer_text(body, ",");
        oip_append_name(body, &output);
        buffer_format(body, ",\"data_type\":\"TYPE_%s\",\"dims\":", datatype_name(output.datatype));
        oip_append_shape(body, NULL, output.dims, output.rank);
        buffer_text(body, "}");
    }
}

/* Load generators read this before they start: names as in the metadata, shapes of one row. */
void oip_model_config(const struct signature *signature, size_t max_batch_rows,
                      uint64_t max_queue_delay_us, struct buffer *body)
{
    buffer_text(body, "{\"name\":");
    json_append_string(body, signature->model);
    buffer_format(body, ",\"platform\":\"moed\",\"backend\":\"moed\",\"max_batch_size\":%zu",
                  max_batch_rows);
    buffer_text(body, ",\"input\":[");
    append_config_inputs(signature, body);
    buffer_text(body, "],\"output\":[");
    append_config_outputs(signature, body);
    buffer_format(body,
                  "],\"dynamic_batching\":{\"max_queue_delay_microseconds\":%" PRIu64
                  "},\"instance_group\":[{\"name\":\"cpu\",\"kind\":\"KIND_CPU\",\"count\":1}],"
                  "\"model_transaction_policy\":{\"decoupled\":false}}",
                  max_queue_delay_us);
}

/* KServe V1 predict: instances in, predictions out, as lists nested by shape. */
#include "proto/v1.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/annotation.h"
#include "proto/envelope.h"
#include "proto/json.h"
#include "proto/members.h"
#include "proto/overrides.h"
#include "proto/v1_rows.h"

/* ---- decoding ---- */

static bool is_member(const char *key)
{
    static const char *const MEMBERS[] = {"instances", "inputs",         "routing",
                                          "tag",       "labels",         "experts",
                                          "priority",  "signature_name", "parameters"};
    for (size_t i = 0; i < sizeof MEMBERS / sizeof *MEMBERS; i++)
        if (strcmp(key, MEMBERS[i]) == 0)
            return true;
    return false;
}

/* Unknown members are refused: a misspelt "routing" must not silently give an answer without
 * it. */
static int check_members(const json_t *root, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)root, key, value) {
        if (!is_member(key))
            return error_set(err, ERROR_INVALID,
                             "unknown member " QUOTED
                             ", expected 'instances' or 'inputs', 'routing', 'tag', 'labels', "
                             "'experts', 'priority', 'signature_name' or 'parameters'",
                             key);
    }
    return 0;
}

/* V1 cannot name outputs: the answer has them all. */
static void all_outputs(struct infer_request *request)
{
    request->output_count = request->signature->output_count;
    request->outputs = xcalloc(request->output_count, sizeof *request->outputs);
    for (size_t i = 0; i < request->output_count; i++)
        request->outputs[i] = (struct infer_output){.source = INFER_OUTPUT, .index = i};
}

/* "routing": true, or an object that says what more is wanted. */
static int read_routing(const json_t *root, struct infer_request *request, struct error *err)
{
    const json_t *routing = json_object_get(root, "routing");
    const char *key;
    json_t *value;
    if (routing && !json_is_boolean(routing) && !json_is_object(routing))
        return error_set(err, ERROR_INVALID,
                         "'routing' is %s, expected true, false or {\"probabilities\": true}",
                         member_type(routing));
    if (!json_is_object(routing))
        return member_bool(root, NULL, "routing", &request->routing, err);
    json_object_foreach ((json_t *)routing, key, value) {
        if (strcmp(key, "probabilities") != 0)
            return error_set(err, ERROR_INVALID,
                             "'routing' has an unknown member " QUOTED ", expected 'probabilities'",
                             key);
    }
    request->routing = true;
    return member_bool(routing, "'routing'", "probabilities", &request->probabilities, err);
}

static int decode(struct envelope *envelope, const struct infer_limits *limits,
                  struct infer_request *request, struct error *err)
{
    size_t priority = 0;
    if (check_members(envelope->root, err) != 0 ||
        read_routing(envelope->root, request, err) != 0 ||
        member_size(envelope->root, NULL, "priority", &priority, err) != 0)
        return -1;
    request->priority = priority;
    if (annotation_read_tag(envelope->root, NULL, request, err) != 0 ||
        overrides_read_member(envelope, request, err) != 0)
        return -1;
    if (v1_decode_rows(envelope, limits, request, err) != 0 ||
        annotation_read_labels(envelope, envelope->root, request, err) != 0)
        return -1;
    all_outputs(request);
    return envelope_check_rest(envelope, err);
}

int v1_decode(const struct signature *signature, const struct infer_body *body,
              const struct infer_limits *limits, struct infer_request *request, struct error *err)
{
    *request = (struct infer_request){.signature = signature, .body = body->bytes};
    struct envelope envelope;
    if (envelope_init_with_rows(&envelope, body->bytes, body->length, "instances", err) != 0)
        return -1;
    int result = decode(&envelope, limits, request, err);
    envelope_close(&envelope);
    if (result != 0)
        infer_request_close(request);
    return result;
}

/* ---- encoding ---- */

/* Appends `values` nested by dims[0..rank). Recursion is as deep as the model's own shape. */
static void append_nested(struct buffer *body, const float *values, const size_t *dims, size_t rank)
{
    if (rank == 0) {
        json_append_floats(body, values, 1);
        return;
    }
    size_t stride = 1;
    for (size_t axis = 1; axis < rank; axis++)
        stride *= dims[axis];
    buffer_text(body, "[");
    if (rank == 1)
        json_append_floats(body, values, dims[0]);
    for (size_t i = 0; rank > 1 && i < dims[0]; i++) {
        if (i > 0)
            buffer_text(body, ",");
        append_nested(body, values + i * stride, dims + 1, rank - 1);
    }
    buffer_text(body, "]");
}

static void append_tensor_row(const struct infer_result *result, size_t output, size_t row,
                              const struct signature_tensor *tensor, struct buffer *body)
{
    append_nested(body, result->outputs[output] + row * tensor->elements, tensor->dims,
                  tensor->rank);
}

/* One output: its value. Several: an object of them by name. */
static void append_prediction(const struct infer_request *request,
                              const struct infer_result *result, size_t row, struct buffer *body)
{
    const struct signature *signature = request->signature;
    if (signature->output_count == 1) {
        append_tensor_row(result, 0, row, &signature->outputs[0], body);
        return;
    }
    for (size_t i = 0; i < signature->output_count; i++) {
        buffer_text(body, i == 0 ? "{" : ",");
        json_append_string(body, signature->outputs[i].name);
        buffer_text(body, ":");
        append_tensor_row(result, i, row, &signature->outputs[i], body);
    }
    buffer_text(body, "}");
}

/* The [items_per_row, top_k] (or [top_k]) list of one row's routing: experts, or weights;
 * probabilities are of all experts. */
static void append_routed_row(const struct infer_result *result, const struct signature *signature,
                              size_t layer, size_t row, enum infer_source what, struct buffer *body)
{
    const struct signature_gate *gate = &signature->gates[layer];
    const size_t numbers = what == INFER_ROUTING_PROBABILITIES ? gate->experts : gate->top_k;
    bool nested = gate->items_per_row > 1;
    buffer_text(body, nested ? "[" : "");
    for (size_t item = 0; item < gate->items_per_row; item++) {
        size_t at = (row * gate->items_per_row + item) * numbers;
        buffer_text(body, item > 0 ? ",[" : "[");
        if (what == INFER_ROUTING_EXPERTS)
            json_append_integers(body, result->routing_experts[layer] + at, numbers);
        else if (what == INFER_ROUTING_WEIGHTS)
            json_append_floats(body, result->routing_weights[layer] + at, numbers);
        else
            json_append_floats(body, result->routing_probabilities[layer] + at, numbers);
        buffer_text(body, "]");
    }
    buffer_text(body, nested ? "]" : "");
}

static void append_routed_rows(const struct infer_request *request,
                               const struct infer_result *result, size_t layer,
                               enum infer_source what, struct buffer *body)
{
    static const char *const KEYS[] = {[INFER_ROUTING_EXPERTS] = "\"experts\":[",
                                       [INFER_ROUTING_WEIGHTS] = ",\"weights\":[",
                                       [INFER_ROUTING_PROBABILITIES] = ",\"probabilities\":["};
    buffer_text(body, KEYS[what]);
    for (size_t row = 0; row < request->rows; row++) {
        if (row > 0)
            buffer_text(body, ",");
        append_routed_row(result, request->signature, layer, row, what, body);
    }
    buffer_text(body, "]");
}

static void append_rows(const struct infer_request *request, const struct infer_result *result,
                        struct buffer *body)
{
    buffer_text(body, "\"predictions\":[");
    for (size_t row = 0; row < request->rows; row++) {
        buffer_text(body, row > 0 ? "," : "");
        append_prediction(request, result, row, body);
    }
    buffer_text(body, "]");
}

static void append_column(const struct infer_request *request, const struct infer_result *result,
                          size_t output, struct buffer *body)
{
    for (size_t row = 0; row < request->rows; row++) {
        buffer_text(body, row > 0 ? "," : "[");
        append_tensor_row(result, output, row, &request->signature->outputs[output], body);
    }
    buffer_text(body, "]");
}

/* One output: its values. Several: an object of them by name. */
static void append_columns(const struct infer_request *request, const struct infer_result *result,
                           struct buffer *body)
{
    const struct signature *signature = request->signature;
    buffer_text(body, "\"outputs\":");
    if (signature->output_count == 1) {
        append_column(request, result, 0, body);
        return;
    }
    for (size_t i = 0; i < signature->output_count; i++) {
        buffer_text(body, i == 0 ? "{" : ",");
        json_append_string(body, signature->outputs[i].name);
        buffer_text(body, ":");
        append_column(request, result, i, body);
    }
    buffer_text(body, "}");
}

static void append_routing(const struct infer_request *request, const struct infer_result *result,
                           struct buffer *body)
{
    buffer_text(body, ",\"routing\":{");
    for (size_t layer = 0; layer < request->signature->gate_count; layer++) {
        if (layer > 0)
            buffer_text(body, ",");
        json_append_string(body, request->signature->gates[layer].name);
        buffer_text(body, ":{");
        append_routed_rows(request, result, layer, INFER_ROUTING_EXPERTS, body);
        append_routed_rows(request, result, layer, INFER_ROUTING_WEIGHTS, body);
        if (request->probabilities)
            append_routed_rows(request, result, layer, INFER_ROUTING_PROBABILITIES, body);
        buffer_text(body, "}");
    }
    buffer_text(body, "}");
}

int v1_encode(const struct infer_request *request, const struct infer_result *result,
              struct buffer *body, size_t *json_length, struct error *err)
{
    *json_length = 0;
    buffer_text(body, "{");
    (request->columns ? append_columns : append_rows)(request, result, body);
    if (request->routing)
        append_routing(request, result, body);
    if (request->overrides.text) {
        buffer_text(body, ",\"experts\":");
        buffer_text(body, request->overrides.text);
    }
    buffer_text(body, "}");
    if (body->failed)
        return buffer_error(body, "the answer", "ask for fewer rows", err);
    return 0;
}

const struct protocol protocol_v1 = {"v1", v1_decode, v1_encode};

/* ---- documents ---- */

static void append_ready(struct buffer *body, const char *model, bool ready)
{
    buffer_text(body, "{\"name\":");
    json_append_string(body, model);
    buffer_text(body, ready ? ",\"ready\":true" : ",\"ready\":false");
}

void v1_model_ready(const char *model, bool ready, struct buffer *body)
{
    append_ready(body, model, ready);
    buffer_text(body, "}");
}

void v1_model_status(const char *model, bool ready, const char *const *versions, size_t count,
                     struct buffer *body)
{
    append_ready(body, model, ready);
    buffer_text(body, ",\"model_version_status\":[");
    for (size_t i = 0; i < count; i++) {
        buffer_text(body, i > 0 ? ",{\"version\":" : "{\"version\":");
        json_append_string(body, versions[i]);
        buffer_text(body, ",\"state\":\"AVAILABLE\",\"status\":{\"error_code\":\"OK\","
                          "\"error_message\":\"\"}}");
    }
    buffer_text(body, "]}");
}

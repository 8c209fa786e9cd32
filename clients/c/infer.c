/* Inference with binary tensors: a request becomes JSON and the tensors' bytes behind it; of an
 * answer every size is checked before a byte of it is looked at. */
#include <stdlib.h>
#include <string.h>

#include "clients/c/internal.h"

struct holder {
    struct moed_client_result result; /* first: what the caller sees */
    json_t *root;
    void *data; /* the answer's tensors, each at a multiple of 8 */
};

/* ---- requests ---- */

static json_t *shape_of(const struct moed_client_tensor *tensor)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer(tensor->dims[i]));
    return shape;
}

static json_t *input_of(const struct moed_client_tensor *tensor)
{
    return json_pack("{s:s, s:s, s:o, s:{s:I}}", "name", tensor->name, "datatype",
                     moed_client_datatype_name(tensor->datatype), "shape", shape_of(tensor),
                     "parameters", "binary_data_size", (json_int_t)tensor->bytes);
}

/* Classes come as BYTES whether binary or not. */
static json_t *output_of(const struct moed_client_output *output)
{
    json_t *object = json_pack("{s:s}", "name", output->name);
    if (output->classification)
        json_object_set_new(object, "parameters",
                            json_pack("{s:I, s:b}", "classification",
                                      (json_int_t)output->classification, "binary_data", 1));
    return object;
}

static json_t *parameters_of(const struct moed_client_request *request,
                             struct moed_client_error *err)
{
    json_error_t at;
    json_t *parameters =
        request->parameters ? json_loads(request->parameters, 0, &at) : json_object();
    if (!json_is_object(parameters)) {
        json_decref(parameters);
        client_fail(err, MOED_CLIENT_INVALID, "parameters: expected a JSON object");
        return NULL;
    }
    json_object_set_new(parameters, "binary_data_output", json_true());
    return parameters;
}

static json_t *request_of(const struct moed_client_request *request, struct moed_client_error *err)
{
    json_t *parameters = parameters_of(request, err);
    if (!parameters)
        return NULL;
    json_t *inputs = json_array(), *outputs = json_array();
    for (size_t i = 0; i < request->input_count; i++)
        json_array_append_new(inputs, input_of(&request->inputs[i]));
    for (size_t i = 0; i < request->output_count; i++)
        json_array_append_new(outputs, output_of(&request->outputs[i]));
    json_t *root = json_pack("{s:o, s:o, s:o}", "inputs", inputs, "outputs", outputs, "parameters",
                             parameters);
    if (root && request->id)
        json_object_set_new(root, "id", json_string(request->id));
    if (!root || json_array_size(inputs) != request->input_count ||
        json_array_size(outputs) != request->output_count) {
        json_decref(root);
        client_fail(err, MOED_CLIENT_INVALID, "names and ids must be UTF-8");
        return NULL;
    }
    return root;
}

static size_t tensor_bytes(const struct moed_client_request *request)
{
    size_t bytes = 0;
    for (size_t i = 0; i < request->input_count; i++)
        bytes += request->inputs[i].bytes;
    return bytes;
}

/* The text with room for the tensors, and the tensors in it. */
static int join(const struct moed_client_request *request, const char *text,
                struct moed_client_call *call, struct moed_client_error *err)
{
    call->json_length = strlen(text);
    call->length = call->json_length + tensor_bytes(request);
    call->body = malloc(call->length + 1);
    if (!call->body)
        return client_no_memory(err);
    memcpy(call->body, text, call->json_length);
    char *to = call->body + call->json_length;
    for (size_t i = 0; i < request->input_count; i++) {
        if (request->inputs[i].bytes)
            memcpy(to, request->inputs[i].data, request->inputs[i].bytes);
        to += request->inputs[i].bytes;
    }
    return 0;
}

int moed_client_encode(const struct moed_client_request *request, struct moed_client_call *call,
                       struct moed_client_error *err)
{
    *call = (struct moed_client_call){.method = "POST"};
    call->path = client_model_path("v2", request->model, request->version, "/infer", err);
    json_t *root = call->path ? request_of(request, err) : NULL;
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (root && !text)
        client_no_memory(err);
    int result = text ? join(request, text, call, err) : -1;
    free(text);
    json_decref(root);
    if (result != 0)
        moed_client_call_close(call);
    return result;
}

/* ---- answers ---- */

/* Whether `bytes` hold so many elements, each behind its length. */
static bool bytes_elements_fit(const unsigned char *at, size_t bytes, uint64_t count)
{
    for (; count > 0; count--) {
        if (bytes < 4)
            return false;
        size_t length = at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 | (size_t)at[3] << 24;
        bytes -= 4;
        if (length > bytes)
            return false;
        at += 4 + length;
        bytes -= length;
    }
    return bytes == 0;
}

static bool size_fits(const struct moed_client_tensor *tensor, const void *data)
{
    uint64_t elements = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        if (tensor->dims[i] < 0 ||
            __builtin_mul_overflow(elements, (uint64_t)tensor->dims[i], &elements))
            return false;
    size_t width = moed_client_datatype_bytes(tensor->datatype);
    if (width == 0)
        return bytes_elements_fit(data, tensor->bytes, elements);
    return elements <= SIZE_MAX / width && elements * width == tensor->bytes;
}

/* Tensor `i` of the answer: from *at on, of at most *left bytes; moves both on. */
static int read_output(json_t *entry, struct moed_client_tensor *tensor, const char **at,
                       size_t *left, struct moed_client_error *err)
{
    if (client_read_tensor(entry, "the answer", tensor, err) != 0)
        return -1;
    json_t *size = json_object_get(json_object_get(entry, "parameters"), "binary_data_size");
    json_int_t bytes = json_is_integer(size) ? json_integer_value(size) : -1;
    if (bytes < 0 || (uint64_t)bytes > *left)
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "the answer's '%.100s' has no binary data, or more than there is",
                           tensor->name);
    tensor->bytes = (size_t)bytes;
    if (!size_fits(tensor, *at))
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "the answer's '%.100s' has %zu byte%s, which its shape does not",
                           tensor->name, tensor->bytes, tensor->bytes == 1 ? "" : "s");
    tensor->data = *at;
    *at += tensor->bytes;
    *left -= tensor->bytes;
    return 0;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 7) / 8 * 8;
}

/* Moves the tensors' bytes from the answer to memory where each is aligned. */
static int keep_data(struct holder *holder, struct moed_client_tensor *outputs, size_t count,
                     struct moed_client_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += aligned(outputs[i].bytes);
    char *to = holder->data = malloc(bytes + 1);
    if (!to)
        return client_no_memory(err);
    for (size_t i = 0; i < count; i++) {
        memcpy(to, outputs[i].data, outputs[i].bytes);
        outputs[i].data = to;
        to += aligned(outputs[i].bytes);
    }
    return 0;
}

static int read_outputs(struct holder *holder, const char *data, size_t left,
                        struct moed_client_error *err)
{
    json_t *list = json_object_get(holder->root, "outputs");
    size_t count = json_array_size(list);
    if (count > CLIENT_MAX_LIST)
        return client_fail(err, MOED_CLIENT_PROTOCOL, "the answer has %zu output%s", count,
                           count == 1 ? "" : "s");
    struct moed_client_tensor *outputs = calloc(count + 1, sizeof *outputs);
    holder->result.outputs = outputs;
    holder->result.output_count = count;
    if (!outputs)
        return client_no_memory(err);
    for (size_t i = 0; i < count; i++)
        if (read_output(json_array_get(list, i), &outputs[i], &data, &left, err) != 0)
            return -1;
    if (left > 0)
        return client_fail(err, MOED_CLIENT_PROTOCOL, "%zu byte%s behind the answer's last tensor",
                           left, left == 1 ? "" : "s");
    return keep_data(holder, outputs, count, err);
}

static int read_result(struct holder *holder, const struct moed_client_answer *answer,
                       struct moed_client_error *err)
{
    size_t json = answer->json_length ? answer->json_length : answer->length;
    if (json > answer->length)
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "the answer has %zu byte%s, and %zu of JSON in them", answer->length,
                           answer->length == 1 ? "" : "s", json);
    holder->root = client_parse(answer->body, json, "the answer", err);
    if (!holder->root)
        return -1;
    holder->result.model = json_string_value(json_object_get(holder->root, "model_name"));
    holder->result.version = json_string_value(json_object_get(holder->root, "model_version"));
    holder->result.id = json_string_value(json_object_get(holder->root, "id"));
    if (!holder->result.model || !holder->result.version)
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "the answer has no model_name or no model_version");
    return read_outputs(holder, answer->body + json, answer->length - json, err);
}

const struct moed_client_result *client_read_result(const struct moed_client_answer *answer,
                                                    struct moed_client_error *err)
{
    struct holder *holder = calloc(1, sizeof *holder);
    if (!holder) {
        client_no_memory(err);
        return NULL;
    }
    if (read_result(holder, answer, err) == 0)
        return &holder->result;
    moed_client_result_free(&holder->result);
    return NULL;
}

const struct moed_client_result *moed_client_infer(struct moed_client *client,
                                                   const struct moed_client_request *request,
                                                   struct moed_client_error *err)
{
    struct moed_client_call call;
    struct moed_client_answer answer = {0};
    if (moed_client_encode(request, &call, err) != 0)
        return NULL;
    const struct moed_client_result *result = NULL;
    if (moed_client_exchange(client, &call, &answer, err) == 0)
        result = client_read_result(&answer, err);
    moed_client_answer_close(&answer);
    moed_client_call_close(&call);
    return result;
}

void moed_client_result_free(const struct moed_client_result *result)
{
    struct holder *holder = (struct holder *)result;
    if (!holder)
        return;
    free((void *)result->outputs);
    free(holder->data);
    json_decref(holder->root);
    free(holder);
}

const struct moed_client_tensor *moed_client_result_output(const struct moed_client_result *result,
                                                           const char *name)
{
    for (size_t i = 0; i < result->output_count; i++)
        if (strcmp(result->outputs[i].name, name) == 0)
            return &result->outputs[i];
    return NULL;
}

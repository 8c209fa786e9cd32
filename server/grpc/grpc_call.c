/* Header and message are kept until the answer: routes read fields when they need them. Both count
 * in the limit of all bodies. */
#include "server/grpc/grpc_call.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/grpc/grpc_status.h"

struct grpc_call *grpc_call_new(struct grpc_edge *edge, const char *client, uint64_t now_ms)
{
    struct grpc_call *call = xcalloc(1, sizeof *call);
    call->edge = edge;
    call->since_ms = now_ms;
    buffer_init(&call->header, GRPC_HEADER_MAX_BYTES);
    struct exchange *exchange = &call->public;
    exchange->method = HTTP_POST;
    exchange->method_text = "POST";
    exchange->path = "";
    exchange->received_ns = uv_hrtime();
    snprintf(exchange->client, sizeof exchange->client, "%s", client);
    return call;
}

static void close_request(struct grpc_call *call)
{
    buffer_close(&call->body);
    call->public.body = NULL;
    http_limits_return_body(call->edge->options->limits, call->counted);
    call->counted = 0;
}

void grpc_call_free(struct grpc_call *call)
{
    const struct http_callbacks *callbacks = call->edge->callbacks;
    assert(call->state != CALL_HANDED);
    callbacks->on_finished(&call->public, uv_hrtime() - call->public.received_ns,
                           callbacks->context);
    close_request(call);
    http_limits_return_answer(call->edge->options->limits, call->answer_counted);
    buffer_close(&call->header);
    buffer_close(&call->answer);
    free((char *)call->public.error_text);
    free(call);
}

void grpc_call_note_error(struct grpc_call *call, const char *text)
{
    free((char *)call->public.error_text);
    call->public.error_text = xstrdup(text);
}

/* ---- the header ---- */

static int count_bytes(struct grpc_call *call, size_t bytes, struct error *err)
{
    if (http_limits_take_body(call->edge->options->limits, bytes, err) != 0)
        return -1;
    call->counted += bytes;
    return 0;
}

/* A second field of a name is kept, and not found. A NUL in a value, which HTTP/2 forbids, would
 * end it. */
void grpc_call_add_field(struct grpc_call *call, const char *name, size_t name_length,
                         const char *value, size_t value_length)
{
    struct error err = ERROR_INIT;
    size_t bytes = name_length + value_length + 2;
    if (call->header_too_large || bytes > call->header.limit - call->header.length ||
        memchr(value, '\0', value_length) || memchr(name, '\0', name_length) ||
        count_bytes(call, bytes, &err) != 0) {
        call->header_too_large = true;
        return;
    }
    buffer_append(&call->header, name, name_length);
    buffer_append(&call->header, "", 1);
    buffer_append(&call->header, value, value_length);
    buffer_append(&call->header, "", 1);
    if (call->header.failed) /* no memory */
        call->header_too_large = true;
}

/* What the gRPC library of a client sets for itself must not change how a route reads the body. */
static bool is_foreign(const char *name)
{
    return strcasecmp(name, "Content-Encoding") == 0 ||
           strcasecmp(name, "Inference-Header-Content-Length") == 0;
}

const char *grpc_call_field(const struct grpc_call *call, const char *name)
{
    const char *at = call->header.data, *end = at + call->header.length;
    if (call->header_too_large || is_foreign(name))
        return NULL;
    if (strcasecmp(name, "Host") == 0)
        name = ":authority";
    while (at && at < end) {
        const char *value = at + strlen(at) + 1;
        if (strcasecmp(at, name) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

static int check_encoding(const struct grpc_call *call, struct error *err)
{
    const char *encoding = grpc_call_field(call, "grpc-encoding");
    if (!encoding || strcmp(encoding, "identity") == 0)
        return 0;
    return error_set(err, ERROR_MEDIA_TYPE,
                     "messages compressed as '%.32s' are not taken: send identity", encoding);
}

static int unimplemented(const struct grpc_call *call, struct error *err)
{
    return error_set(err, ERROR_METHOD, "no such method: %.200s", call->public.path);
}

/* Routes are asked with a stand-in for the model, whose name comes with the message. A method that
 * does not exist takes a token all the same. */
int grpc_call_admit(struct grpc_call *call, struct error *err)
{
    struct exchange *exchange = &call->public;
    const struct http_callbacks *callbacks = call->edge->callbacks;
    const char *path = grpc_call_field(call, ":path"), *timeout;
    exchange->path = path ? path : "";
    if (call->header_too_large)
        return error_set(err, ERROR_HEADER_TOO_LARGE,
                         "the header has more than %d bytes, or there is no room for it",
                         GRPC_HEADER_MAX_BYTES);
    call->method = grpc_method_find(exchange->path);
    exchange->method = HTTP_OTHER; /* no route takes it */
    if (call->method) {
        (void)!grpc_method_path(call->method, "m", "", call->path, err); /* has a name */
        exchange->method = call->method->method;
        exchange->path = call->path;
        exchange->protocol = call->method->protocol;
    }
    exchange->awaits_body = !call->method || call->method->question != GRPC_NOTHING;
    if (call->method && call->method->question == GRPC_SERVICE)
        exchange->awaits_body = false; /* health is asked without a body */
    int refused = callbacks->on_header(exchange, callbacks->context, err);
    exchange->path = path ? path : "";
    if (refused)
        return -1;
    timeout = grpc_call_field(call, "grpc-timeout");
    if (timeout && grpc_read_timeout(timeout, &exchange->timeout_us, err) != 0)
        return -1;
    return call->method ? check_encoding(call, err) : unimplemented(call, err);
}

/* ---- the message ---- */

static int begin_message(struct grpc_call *call, struct error *err)
{
    const unsigned char *prefix = call->prefix;
    const struct http_options *options = call->edge->options;
    if (prefix[0] != 0)
        return error_set(err, ERROR_MEDIA_TYPE, "compressed messages are not taken: send identity");
    call->message_length =
        (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
    if (call->message_length > options->max_body_bytes)
        return error_set(err, ERROR_TOO_LARGE, "the message has %zu bytes, the limit is %zu",
                         call->message_length, options->max_body_bytes);
    if (http_limits_check_body(options->limits, call->message_length, err) != 0)
        return -1;
    buffer_init(&call->body, call->message_length);
    if (call->message_length > 0 && !buffer_reserve(&call->body, call->message_length))
        return error_set(err, ERROR_UNAVAILABLE, "no memory for a message of %zu bytes",
                         call->message_length);
    return 0;
}

int grpc_call_receive(struct grpc_call *call, const void *bytes, size_t length, struct error *err)
{
    size_t rest = GRPC_PREFIX_BYTES - call->prefix_length;
    size_t taken = length < rest ? length : rest;
    memcpy(call->prefix + call->prefix_length, bytes, taken);
    call->prefix_length += taken;
    if (taken > 0 && call->prefix_length == GRPC_PREFIX_BYTES && begin_message(call, err) != 0)
        return -1;
    length -= taken;
    if (length == 0)
        return 0;
    if (length > call->message_length - call->body.length)
        return error_set(err, ERROR_INVALID, "there is more behind the message: a call takes one");
    if (count_bytes(call, length, err) != 0)
        return -1;
    buffer_append(&call->body, (const char *)bytes + taken, length);
    return call->body.failed ? error_set(err, ERROR_UNAVAILABLE, "no memory for the message") : 0;
}

/* ---- the exchange of its route ---- */

static int check_service(const char *name, struct error *err)
{
    if (!*name || strcmp(name, "inference.GRPCInferenceService") == 0)
        return 0;
    return error_set(err, ERROR_NOT_FOUND, "no such service: %.100s", name);
}

/* For a document the route gets the request as JSON, for tensors as it is. */
static int prepare(struct grpc_call *call, struct error *err)
{
    const struct grpc_method *method = call->method;
    struct grpc_request request;
    const char *message = call->body.length ? call->body.data : "";
    if (grpc_decode(method->question, message, call->body.length, &request, err) != 0)
        return -1;
    int result = method->question == GRPC_SERVICE
                     ? check_service(request.name, err)
                     : grpc_method_path(method, request.name, request.version, call->path, err);
    if (result == 0 && method->method == HTTP_POST && !method->protocol) {
        buffer_close(&call->body);
        call->body = request.json;
        return 0;
    }
    buffer_close(&request.json);
    return result;
}

int grpc_call_end(struct grpc_call *call, struct error *err)
{
    if (call->prefix_length < GRPC_PREFIX_BYTES || call->body.length < call->message_length)
        return error_set(err, ERROR_INVALID, "the stream ends after %zu byte%s of a message of %zu",
                         call->body.length, text_s(call->body.length), call->message_length);
    call->public.body_length = call->body.length;
    return prepare(call, err);
}

bool grpc_call_is_vital(struct grpc_call *call)
{
    struct exchange *exchange = &call->public;
    const char *path = exchange->path;
    exchange->path = call->path;
    bool vital = call->edge->callbacks->is_vital(exchange, call->edge->callbacks->context);
    exchange->path = path;
    return vital;
}

void grpc_call_hand_over(struct grpc_call *call)
{
    struct exchange *exchange = &call->public;
    const char *path = exchange->path;
    const struct http_callbacks *callbacks = call->edge->callbacks;
    call->state = CALL_HANDED;
    TAILQ_INSERT_TAIL(&call->edge->handed, call, handed_link);
    call->edge->handed_count++;
    size_t received = exchange->body_length;
    exchange->body = call->body.length ? call->body.data : NULL;
    exchange->body_length = call->body.length;
    exchange->path = call->path;
    callbacks->on_request(exchange, callbacks->context);
    exchange->path = path;
    if (!call->method->protocol)
        exchange->body_length = received; /* for the report */
}

void grpc_call_take_back(struct grpc_call *call)
{
    assert(call->state == CALL_HANDED);
    grpc_call_set_sending(call);
    TAILQ_REMOVE(&call->edge->handed, call, handed_link);
    call->edge->handed_count--;
    call->public.on_disconnect = NULL;
}

void grpc_call_set_sending(struct grpc_call *call)
{
    call->state = CALL_SENDING;
    call->since_ms = call->moved_ms = grpc_now_ms();
    close_request(call);
}

/* An error is one header with the status in it; an answer is a header, the message, and a trailer
 * with the status. Names and values are copied by libnghttp2. */
#include "server/grpc/grpc_answer.h"

#include <ctype.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/grpc/grpc_status.h"

enum { NAME_BYTES = 64, MAX_FIELDS = HTTP_MAX_REPLY_HEADERS + 6 };

/* Header fields while they are put together. */
struct fields {
    nghttp2_nv list[MAX_FIELDS];
    char names[HTTP_MAX_REPLY_HEADERS][NAME_BYTES]; /* in lower case, as HTTP/2 has them */
    size_t count;
};

static void add(struct fields *fields, const char *name, const char *value)
{
    fields->list[fields->count++] =
        (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                     strlen(value), NGHTTP2_NV_FLAG_NONE};
}

/* What the handler has added, such as the request's id. */
static void add_metadata(struct fields *fields, const struct exchange *exchange)
{
    for (size_t i = 0; i < exchange->reply_header_count; i++) {
        const struct http_header *header = &exchange->reply_headers[i];
        char *name = fields->names[i];
        snprintf(name, NAME_BYTES, "%s", header->name);
        for (char *c = name; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        add(fields, name, header->literal ? header->literal : header->value);
    }
}

static void begin(struct fields *fields, const struct grpc_call *call)
{
    *fields = (struct fields){.count = 0};
    add(fields, ":status", "200");
    add(fields, "content-type", "application/grpc");
    add_metadata(fields, &call->public);
}

/* Failing means that memory is out, or that the stream has just been closed: then nobody waits. */
static void submit(struct grpc_call *call, const struct fields *fields,
                   const nghttp2_data_provider *message)
{
    struct grpc_session *session = call->session;
    int result =
        nghttp2_submit_response(session->h2, call->stream, fields->list, fields->count, message);
    if (result != 0 && nghttp2_is_fatal(result))
        out_of_memory();
    session->on_output(session);
}

/* ---- errors ---- */

static void send_error(struct grpc_call *call, enum grpc_status status, const char *text,
                       bool temporary)
{
    struct fields fields;
    char code[8], message[GRPC_MESSAGE_BYTES], pushback[24];
    unsigned seconds = call->public.retry_after_s ? call->public.retry_after_s : 1;
    begin(&fields, call);
    snprintf(code, sizeof code, "%d", (int)status);
    grpc_write_message(text, message);
    add(&fields, "grpc-status", code);
    add(&fields, "grpc-message", message);
    if (status == GRPC_UNIMPLEMENTED)
        add(&fields, "grpc-accept-encoding", "identity");
    if (temporary) {
        snprintf(pushback, sizeof pushback, "%u", 1000 * seconds);
        add(&fields, "grpc-retry-pushback-ms", pushback);
    }
    submit(call, &fields, NULL);
}

/* A call whose client is gone is only reported. */
static bool is_left(struct grpc_call *call)
{
    if (call->session)
        return false;
    grpc_call_free(call);
    return true;
}

static void answer_error(struct grpc_call *call, const struct error *err)
{
    call->public.status = error_http_status(err->code);
    grpc_call_note_error(call, err->text);
    if (is_left(call))
        return;
    send_error(call, grpc_status_of(err->code), err->text,
               err->code == ERROR_OVERLOADED || err->code == ERROR_UNAVAILABLE);
}

void grpc_answer_error(struct grpc_call *call, const struct error *err)
{
    grpc_call_set_sending(call);
    answer_error(call, err);
}

void grpc_answer_status(struct grpc_call *call, int status, const char *text)
{
    struct fields fields = {.count = 0};
    char code[8];
    snprintf(code, sizeof code, "%d", status);
    add(&fields, ":status", code);
    call->public.status = status;
    grpc_call_note_error(call, text);
    grpc_call_set_sending(call);
    submit(call, &fields, NULL);
}

/* ---- messages ---- */

static void send_trailer(struct grpc_call *call)
{
    struct fields fields = {.count = 0};
    add(&fields, "grpc-status", "0");
    int result = nghttp2_submit_trailer(call->session->h2, call->stream, fields.list, fields.count);
    if (result != 0 && nghttp2_is_fatal(result))
        out_of_memory();
}

static ssize_t read_message(nghttp2_session *h2, int32_t stream, uint8_t *bytes, size_t size,
                            uint32_t *flags, nghttp2_data_source *source, void *context)
{
    struct grpc_call *call = source->ptr;
    (void)h2, (void)stream, (void)context;
    size_t at = call->answer_taken, left = GRPC_PREFIX_BYTES + call->answer.length - at;
    size_t taken = left < size ? left : size, head = 0;
    for (; head < taken && at + head < GRPC_PREFIX_BYTES; head++)
        bytes[head] = call->answer_prefix[at + head];
    if (taken > head)
        memcpy(bytes + head, call->answer.data + (at + head - GRPC_PREFIX_BYTES), taken - head);
    call->answer_taken += taken;
    call->moved_ms = grpc_now_ms();
    if (taken == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        send_trailer(call);
    }
    return (ssize_t)taken;
}

/* Takes the message. */
static void send_message(struct grpc_call *call, struct buffer *message)
{
    struct fields fields;
    nghttp2_data_provider provider = {.source = {.ptr = call}, .read_callback = read_message};
    size_t length = message->length;
    for (size_t i = GRPC_PREFIX_BYTES - 1; i > 0; i--, length >>= 8)
        call->answer_prefix[i] = (unsigned char)length;
    call->public.reply_length = GRPC_PREFIX_BYTES + message->length;
    call->answer = *message;
    *message = (struct buffer){0};
    if (is_left(call))
        return;
    call->answer_counted =
        http_limits_take_answer(call->edge->options->limits, call->answer.length);
    begin(&fields, call);
    submit(call, &fields, &provider);
}

/* ---- what routes answer with ---- */

static void reply_error(struct exchange *exchange, const struct error *err)
{
    struct grpc_call *call = (struct grpc_call *)exchange;
    struct buffer defaults = {0}; /* the message with every field at its default */
    grpc_call_take_back(call);
    /* As Triton has it, a model that does not exist is not ready. */
    bool is_unready = err->code == ERROR_NOT_FOUND && call->method->answer == GRPC_READY;
    if (!is_unready) {
        answer_error(call, err);
        return;
    }
    exchange->status = error_http_status(err->code);
    grpc_call_note_error(call, err->text);
    send_message(call, &defaults);
}

/* Whether a document of this status is the answer, and no error. */
static bool is_answer(const struct grpc_call *call, int status)
{
    enum grpc_answer answer = call->method->answer;
    return status == 200 || answer == GRPC_READY || answer == GRPC_SERVING;
}

/* A protocol's document is the message, and moves there. */
static int write_message(const struct grpc_call *call, int status, struct buffer *document,
                         struct buffer *message, struct error *err)
{
    buffer_init(message, document->limit);
    if (document->failed)
        return error_set(err, ERROR_INTERNAL,
                         "the answer is larger than the server's limit or its memory");
    if (!is_answer(call, status))
        return error_set(err, ERROR_INTERNAL, "the route answered with status %d", status);
    if (call->method->protocol) {
        *message = *document;
        *document = (struct buffer){0};
    } else if (grpc_encode(call->method->answer, document->data, document->length, message, err) !=
               0) {
        return -1;
    }
    return message->failed || message->length > UINT32_MAX
               ? error_set(err, ERROR_UNAVAILABLE, "no memory for the answer")
               : 0;
}

static void reply(struct exchange *exchange, int status, struct buffer *document)
{
    struct grpc_call *call = (struct grpc_call *)exchange;
    struct buffer message;
    struct error err = ERROR_INIT;
    grpc_call_take_back(call);
    int result = write_message(call, status, document, &message, &err);
    buffer_close(document);
    if (result == 0 && call->session)
        result = http_limits_check_answer(call->edge->options->limits, message.length, &err);
    if (result == 0) {
        exchange->status = status;
        send_message(call, &message);
    } else {
        answer_error(call, &err);
    }
    buffer_close(&message);
}

static const char *header_in(const struct exchange *exchange, const char *name)
{
    return grpc_call_field((const struct grpc_call *)exchange, name);
}

const struct exchange_edge grpc_answer_edge = {
    .header_in = header_in, .reply = reply, .reply_error = reply_error};

/* What libnghttp2 tells us of frames, and what follows for calls.
 *
 * Whole calls are handed over after the bytes were read, not while: a handler may answer at once.
 * Answers are only put into the session; who owns it sends them in its own time, because a client
 * that is found gone while one answer is sent would take others from under their handlers. */
#include "server/grpc/grpc_session.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/memory.h"
#include "server/grpc/grpc_answer.h"
#include "server/http/http_tls.h"

/* A client that takes its answer more slowly than this may be trying to exhaust memory. */
enum { SLOWEST_READER_BYTES_PER_MS = 16 };

/* ---- calls ---- */

static struct grpc_call *call_of(nghttp2_session *h2, int32_t stream)
{
    return nghttp2_session_get_stream_user_data(h2, stream);
}

static void begin_call(struct grpc_session *session, int32_t stream)
{
    struct grpc_call *call = grpc_call_new(session->edge, session->client, grpc_now_ms());
    call->public.edge = &grpc_answer_edge;
    call->public.certified = session->tls && http_tls_is_certified(session->tls);
    call->session = session;
    call->stream = stream;
    TAILQ_INSERT_TAIL(&session->calls, call, link);
    session->call_count++;
    nghttp2_session_set_stream_user_data(session->h2, stream, call);
}

/* The stream is closed: nobody waits for the call any more. A handler that has it may answer at
 * once when it hears of that, which frees the call. */
static void end_call(struct grpc_session *session, struct grpc_call *call)
{
    TAILQ_REMOVE(&session->calls, call, link);
    session->call_count--;
    session->idle_since_ms = grpc_now_ms();
    call->session = NULL;
    if (call->state == CALL_HANDED) {
        void (*on_disconnect)(struct exchange *) = call->public.on_disconnect;
        call->public.on_disconnect = NULL;
        if (on_disconnect)
            on_disconnect(&call->public);
        return;
    }
    if (call->state == CALL_RECEIVING && call->public.status == 0) {
        call->public.status = error_http_status(ERROR_DISCONNECTED);
        grpc_call_note_error(call, "the client left before its request was whole");
    }
    grpc_call_free(call);
}

/* ---- frames ---- */

/* Whether the client may send one more frame that brings no call further. */
static bool may_send(struct grpc_session *session)
{
    enum { MOST = 1000 * GRPC_IDLE_FRAMES_AT_ONCE };
    uint64_t now = grpc_now_ms();
    session->frames += (now - session->frames_ms) * GRPC_IDLE_FRAMES_PER_SECOND;
    session->frames_ms = now;
    if (session->frames > MOST)
        session->frames = MOST;
    if (session->frames < 1000)
        return false;
    session->frames -= 1000;
    return true;
}

/* -1: the client is sent away. */
static int count_idle_frame(struct grpc_session *session)
{
    if (may_send(session))
        return 0;
    nghttp2_session_terminate_session(session->h2, NGHTTP2_ENHANCE_YOUR_CALM);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static bool is_idle_frame(const nghttp2_frame *frame)
{
    switch (frame->hd.type) {
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_PRIORITY:
        return true;
    case NGHTTP2_DATA: /* nothing but padding, if that */
        return frame->hd.length == frame->data.padlen &&
               !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
    default:
        return false;
    }
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *context)
{
    (void)h2;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        begin_call(context, frame->hd.stream_id);
    return 0;
}

/* Of trailers, which no call needs, only the end counts. */
static int on_field(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                    size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags,
                    void *context)
{
    (void)flags, (void)context;
    struct grpc_call *call = call_of(h2, frame->hd.stream_id);
    if (call && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        grpc_call_add_field(call, (const char *)name, name_length, (const char *)value,
                            value_length);
    return 0;
}

/* ---- requests ---- */

/* Whether this is the content type of gRPC's messages. */
static bool is_grpc(const char *type)
{
    static const char GRPC[] = "application/grpc";
    if (!type || strncasecmp(type, GRPC, strlen(GRPC)) != 0)
        return false;
    type += strlen(GRPC);
    if (strncasecmp(type, "+proto", 6) == 0)
        type += 6;
    return *type == '\0' || *type == ';' || *type == ' ';
}

static void admit(struct grpc_call *call)
{
    struct error err = ERROR_INIT;
    const char *method = grpc_call_field(call, ":method");
    if (!call->header_too_large && (!method || strcmp(method, "POST") != 0))
        grpc_answer_status(call, error_http_status(ERROR_METHOD), "gRPC takes POST");
    else if (!call->header_too_large && !is_grpc(grpc_call_field(call, "content-type")))
        grpc_answer_status(call, error_http_status(ERROR_MEDIA_TYPE),
                           "gRPC takes the content type application/grpc");
    else if (grpc_call_admit(call, &err) != 0)
        grpc_answer_error(call, &err);
}

static void end_request(struct grpc_call *call)
{
    struct error err = ERROR_INIT;
    if (call->state != CALL_RECEIVING)
        return; /* answered already */
    if (grpc_call_end(call, &err) != 0)
        grpc_answer_error(call, &err);
    else
        call->whole = true;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *context)
{
    struct grpc_call *call = call_of(h2, frame->hd.stream_id);
    if (is_idle_frame(frame) && count_idle_frame(context) != 0)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (call && frame->hd.type == NGHTTP2_RST_STREAM)
        call->left = true;
    if (!call || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        admit(call);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        end_request(call);
    return 0;
}

/* libnghttp2 answers what breaks the rules with a reset of the stream, and of these it keeps any
 * number for a client that does not read. */
static int on_invalid_frame(nghttp2_session *h2, const nghttp2_frame *frame, int reason,
                            void *context)
{
    (void)h2, (void)frame, (void)reason;
    return count_idle_frame(context) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *bytes,
                   size_t length, void *context)
{
    (void)flags, (void)context;
    struct error err = ERROR_INIT;
    struct grpc_call *call = call_of(h2, stream);
    if (call && call->state == CALL_RECEIVING && grpc_call_receive(call, bytes, length, &err) != 0)
        grpc_answer_error(call, &err);
    return 0;
}

/* libnghttp2 has reset the stream of a request that breaks the rules of HTTP/2. */
static void note_breach(struct grpc_call *call, uint32_t code)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_INVALID, "the request is not as HTTP/2 has it: %s",
              nghttp2_http2_strerror(code));
    call->public.status = error_http_status(err.code);
    grpc_call_note_error(call, err.text);
}

static int on_stream_close(nghttp2_session *h2, int32_t stream, uint32_t code, void *context)
{
    struct grpc_call *call = call_of(h2, stream);
    if (!call)
        return 0;
    if (call->state == CALL_RECEIVING && !call->left && code != NGHTTP2_NO_ERROR)
        note_breach(call, code);
    end_call(context, call);
    return 0;
}

/* Who is answered before its request is whole need not send the rest (RFC 9113, section 8.1). */
static int on_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *context)
{
    (void)context;
    int32_t stream = frame->hd.stream_id;
    if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
        nghttp2_session_get_stream_remote_close(h2, stream) == 0)
        nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, stream, NGHTTP2_NO_ERROR);
    return 0;
}

/* ---- the session ---- */

static nghttp2_session *new_h2(struct grpc_session *session)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *h2;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        out_of_memory();
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_field);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    if (nghttp2_session_server_new(&h2, callbacks, session) != 0)
        out_of_memory();
    nghttp2_session_callbacks_del(callbacks);
    return h2;
}

void grpc_session_open(struct grpc_session *session, uint64_t now_ms)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, GRPC_MAX_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GRPC_STREAM_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_HEADER_MAX_BYTES}};
    TAILQ_INIT(&session->calls);
    session->idle_since_ms = now_ms;
    session->frames_ms = grpc_now_ms();
    session->frames = 1000 * GRPC_IDLE_FRAMES_AT_ONCE;
    session->h2 = new_h2(session);
    if (nghttp2_submit_settings(session->h2, NGHTTP2_FLAG_NONE, settings,
                                sizeof settings / sizeof *settings) != 0 ||
        nghttp2_session_set_local_window_size(session->h2, NGHTTP2_FLAG_NONE, 0,
                                              GRPC_SESSION_WINDOW_BYTES) != 0)
        out_of_memory();
}

void grpc_session_close(struct grpc_session *session)
{
    struct grpc_call *call;
    while ((call = TAILQ_FIRST(&session->calls)))
        end_call(session, call);
    nghttp2_session_del(session->h2);
    session->h2 = NULL;
}

static void serve(struct grpc_session *session, struct grpc_call *call)
{
    struct error err = ERROR_INIT;
    if (session->may_serve(session, call)) {
        grpc_call_hand_over(call);
        return;
    }
    error_set(&err, ERROR_UNAVAILABLE, HTTP_ALL_TAKEN);
    grpc_answer_error(call, &err);
}

/* A handler that answers at once may end other calls, so each search begins anew. */
static void hand_over_calls(struct grpc_session *session)
{
    struct grpc_call *call = TAILQ_FIRST(&session->calls);
    while (call) {
        bool ready = call->whole && call->state == CALL_RECEIVING;
        if (ready)
            serve(session, call);
        call = ready ? TAILQ_FIRST(&session->calls) : TAILQ_NEXT(call, link);
    }
}

int grpc_session_receive(struct grpc_session *session, const void *bytes, size_t length)
{
    ssize_t taken = nghttp2_session_mem_recv(session->h2, bytes, length);
    hand_over_calls(session);
    return taken < 0 ? -1 : 0;
}

ssize_t grpc_session_take(struct grpc_session *session, const uint8_t **bytes)
{
    ssize_t length = nghttp2_session_mem_send(session->h2, bytes);
    return length < 0 ? -1 : length;
}

bool grpc_session_is_over(const struct grpc_session *session)
{
    bool wants_read =
        nghttp2_session_want_read(session->h2) && !(session->draining && session->call_count == 0);
    return !wants_read && !nghttp2_session_want_write(session->h2);
}

/* ---- what has lasted too long ---- */

static void refuse_late(struct grpc_call *call)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_TIMEOUT, "the request did not arrive whole in time");
    grpc_answer_error(call, &err);
}

static void reset(struct grpc_call *call)
{
    struct grpc_session *session = call->session;
    if (call->cut)
        return;
    call->cut = true;
    nghttp2_submit_rst_stream(session->h2, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
    session->on_output(session);
}

static void expire_call(struct grpc_call *call, uint64_t now_ms)
{
    const struct http_options *options = call->edge->options;
    uint64_t allowance =
        options->idle_timeout_ms + call->answer.length / SLOWEST_READER_BYTES_PER_MS;
    uint64_t patience =
        http_limits_patience_ms(options->limits, call->answer_counted, options->idle_timeout_ms);
    if (call->state == CALL_RECEIVING && now_ms >= call->since_ms + options->request_timeout_ms)
        refuse_late(call);
    else if (call->state == CALL_SENDING &&
             (now_ms >= call->since_ms + allowance || now_ms >= call->moved_ms + patience))
        reset(call);
}

static void go_away(struct grpc_session *session)
{
    session->expired = true;
    nghttp2_session_terminate_session(session->h2, NGHTTP2_NO_ERROR);
    session->on_output(session);
}

void grpc_session_expire(struct grpc_session *session, uint64_t now_ms)
{
    struct grpc_call *call;
    TAILQ_FOREACH(call, &session->calls, link)
    expire_call(call, now_ms);
    if (session->call_count == 0 && !session->expired &&
        now_ms >= session->idle_since_ms + session->edge->options->idle_timeout_ms)
        go_away(session);
}

/* ---- draining ---- */

void grpc_session_announce_drain(struct grpc_session *session)
{
    nghttp2_submit_shutdown_notice(session->h2);
    session->on_output(session);
}

void grpc_session_drain(struct grpc_session *session)
{
    session->draining = true;
    nghttp2_submit_goaway(session->h2, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(session->h2), NGHTTP2_NO_ERROR,
                          NULL, 0);
    session->on_output(session);
}

void grpc_session_refuse_unfinished(struct grpc_session *session)
{
    struct grpc_call *call;
    TAILQ_FOREACH(call, &session->calls, link)
    if (call->state == CALL_RECEIVING)
        refuse_late(call);
}

void grpc_session_cut_answers(struct grpc_session *session)
{
    struct grpc_call *call;
    TAILQ_FOREACH(call, &session->calls, link)
    if (call->state == CALL_SENDING)
        reset(call);
}

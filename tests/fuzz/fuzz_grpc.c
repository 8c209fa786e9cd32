/* Fuzzes gRPC. The first byte of an input says what the rest is:
 *
 *   'f'  frames behind the preface of HTTP/2, to a session whose handler answers at once
 *   'k'  the same, and the handler answers when the client has gone
 *   'i'  a ModelInferRequest: decoded, read and answered
 *   else another request, decoded as the kind that the byte names
 */
#include "fuzz_exchange.h"
#include "libfuzzer.h"
#include "proto/grpc.h"
#include "tests/unit/grpc_frames.h"

/* ---- frames ---- */

static void check_session(const uint8_t *data, size_t size, bool keep)
{
    static struct http_limits *limits;
    struct error err = ERROR_INIT;
    struct peer peer;
    struct buffer in, out;
    if (!limits)
        limits = http_limits_new(16, 0, 1 << 16, &err);
    peer_open(&peer, limits);
    peer.keep = keep;
    buffer_init(&in, 1 << 20);
    buffer_init(&out, 1 << 22);
    put_preface(&in);
    buffer_append(&in, data, size);
    /* in two pieces, so that frames are cut somewhere */
    size_t first = in.length / 2;
    int result = grpc_session_receive(&peer.session, in.data, first);
    if (result == 0 && peer_take(&peer, &out) == 0)
        result = grpc_session_receive(&peer.session, in.data + first, in.length - first);
    (void)!peer_take(&peer, &out);
    grpc_session_expire(&peer.session, uv_hrtime() / 1000000 + 2000);
    (void)!peer_take(&peer, &out);
    grpc_session_close(&peer.session);
    for (struct grpc_call *call; (call = TAILQ_FIRST(&peer.edge.handed));)
        peer_answer(&call->public);
    require(peer.finished >= peer.requests);
    require(http_limits_check_body(limits, 1 << 16, &err) == 0);
    buffer_close(&in);
    buffer_close(&out);
}

/* ---- messages ---- */

static void check_answer(const struct infer_request *request)
{
    static const float numbers[EXCHANGE_MAX_NUMBERS] = {0.25f, 1, -2, 3e-9f, 7};
    static const int32_t experts[EXCHANGE_MAX_NUMBERS] = {0, 4, 2};
    const float *floats[] = {numbers, numbers};
    const int32_t *integers[] = {experts, experts};
    const struct infer_result result = {
        .outputs = floats, .routing_experts = integers, .routing_weights = floats};
    struct buffer message;
    struct error err = ERROR_INIT;
    size_t json_length;
    buffer_init(&message, 1 << 20);
    require(protocol_grpc.encode(request, &result, &message, &json_length, &err) == 0);
    require(json_length == 0);
    buffer_close(&message);
}

static void check_infer(const uint8_t *data, size_t size)
{
    const struct infer_body body = {(const char *)data, size, NULL};
    struct infer_request request;
    struct error err = ERROR_INIT;
    float values[EXCHANGE_MAX_NUMBERS];
    if (protocol_grpc.decode(&digits_model, &body, &test_limits, &request, &err) != 0) {
        check_error(&err);
        return;
    }
    require(request.rows >= 1 && request.rows <= test_limits.max_rows);
    require(request.inputs[0].binary);
    (void)!read_input(&request, 0, values);
    check_answer(&request);
    infer_request_close(&request);
}

static void check_request(enum grpc_question question, const uint8_t *data, size_t size)
{
    struct grpc_request request;
    struct error err = ERROR_INIT;
    if (grpc_decode(question, (const char *)data, size, &request, &err) != 0) {
        require(err.text[0] != '\0');
        return;
    }
    json_t *document = json_loadb(request.json.data, request.json.length, 0, NULL);
    require(json_is_object(document));
    json_decref(document);
    buffer_close(&request.json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 1 << 16)
        return 0;
    if (data[0] == 'f' || data[0] == 'k')
        check_session(data + 1, size - 1, data[0] == 'k');
    else if (data[0] == 'i')
        check_infer(data + 1, size - 1);
    else
        check_request(data[0] % (GRPC_SERVICE + 1), data + 1, size - 1);
    return 0;
}

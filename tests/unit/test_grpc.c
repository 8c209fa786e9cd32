/* gRPC's sessions without sockets: calls, refusals, clients that go, floods, drains; and the texts
 * of its header fields. */
#include <check.h>

#include "grpc_frames.h"
#include "patience.h"
#include "server/grpc/grpc_method.h"
#include "server/grpc/grpc_status.h"

static struct http_limits *limits;
static struct peer peer;
static struct buffer in, out;

static void setup(void)
{
    struct error err = ERROR_INIT;
    limits = http_limits_new(16, 0, 1 << 16, &err);
    ck_assert_ptr_nonnull(limits);
    peer_open(&peer, limits);
    buffer_init(&in, 1 << 22);
    buffer_init(&out, 1 << 22);
    put_preface(&in);
}

/* Whatever happened, every byte of a body is given back. */
static void teardown(void)
{
    struct error err = ERROR_INIT;
    if (peer.session.h2)
        grpc_session_close(&peer.session);
    ck_assert_uint_eq(peer.edge.handed_count, 0);
    ck_assert_int_eq(http_limits_check_body(limits, 1 << 16, &err), 0);
    http_limits_free(limits);
    buffer_close(&in);
    buffer_close(&out);
}

/* Gives the session what was written, and takes what it says. */
static int exchange_bytes(void)
{
    int result = grpc_session_receive(&peer.session, in.data, in.length);
    in.length = 0;
    ck_assert_int_eq(peer_take(&peer, &out), 0);
    return result;
}

static bool has(const char *text)
{
    return memmem(out.data, out.length, text, strlen(text)) != NULL;
}

/* Whether a frame of this type is among those that were sent. */
static bool has_frame(int type)
{
    for (size_t at = 0; at + 9 <= out.length;) {
        const unsigned char *head = (const unsigned char *)out.data + at;
        if (head[3] == type)
            return true;
        at += 9 + ((size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2]);
    }
    return false;
}

static void refused(int status, const char *words)
{
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.requests, 0);
    ck_assert_uint_eq(peer.finished, 1);
    ck_assert_int_eq(peer.status, status);
    ck_assert_msg(strstr(peer.error, words) != NULL, "%s", peer.error);
}

/* ---- calls ---- */

START_TEST(a_call_is_its_route)
{
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    put_message(&in, 1,
                "\x0A\x03m/1\x12\x01"
                "2",
                8);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.requests, 1);
    ck_assert_str_eq(peer.path, "/v2/models/m%2F1/versions/2/ready");
    ck_assert_uint_eq(peer.finished, 1);
    ck_assert_int_eq(peer.status, 200);
    ck_assert(memmem(out.data, out.length, "\0\0\0\0\2\x08\x01", 7) != NULL);
}
END_TEST

START_TEST(a_message_may_come_a_byte_at_a_time)
{
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    put_message(&in, 1, "\x0A\x01m", 3);
    for (size_t i = 0; i < in.length; i++)
        ck_assert_int_eq(grpc_session_receive(&peer.session, in.data + i, 1), 0);
    in.length = 0;
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_int_eq(peer.status, 200);
}
END_TEST

START_TEST(a_message_may_come_in_many_frames)
{
    static const char MESSAGE[] = "\0\0\0\0\3\x0A\x01m";
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    for (size_t i = 0; i < 8; i++)
        put_frame(&in, FRAME_DATA, i == 7 ? FLAG_END_STREAM : 0, 1, MESSAGE + i, 1);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_int_eq(peer.status, 200);
}
END_TEST

START_TEST(calls_are_refused_at_their_header)
{
    put_call(&in, 1, SERVICE "ModelReady", "authorization", "Bearer x");
    put_frame(&in, FRAME_DATA, 0, 1, "\0\0\0\0", 4);
    refused(401, "not known: Bearer x");
    ck_assert(has("grpc-status") || has_frame(FRAME_HEADERS));
    ck_assert(has_frame(FRAME_RST_STREAM)); /* the rest is not wanted */
}
END_TEST

START_TEST(methods_that_do_not_exist_are_refused)
{
    put_call(&in, 1, SERVICE "ModelStreamInfer", NULL, NULL);
    refused(405, "no such method: " SERVICE "ModelStreamInfer");
}
END_TEST

START_TEST(compressed_calls_are_refused)
{
    put_call(&in, 1, SERVICE "ServerLive", "grpc-encoding", "gzip");
    refused(415, "compressed as 'gzip'");
}
END_TEST

START_TEST(compressed_messages_are_refused)
{
    put_call(&in, 1, SERVICE "ServerLive", NULL, NULL);
    put_frame(&in, FRAME_DATA, 0, 1, "\1\0\0\0\0", 5);
    refused(415, "compressed");
}
END_TEST

START_TEST(long_messages_are_refused_by_their_length)
{
    put_call(&in, 1, SERVICE "ModelInfer", NULL, NULL);
    put_frame(&in, FRAME_DATA, 0, 1, "\0\xFF\0\0\0", 5);
    refused(413, "the message has 4278190080 bytes, the limit is 4096");
}
END_TEST

START_TEST(cut_messages_are_refused)
{
    put_call(&in, 1, SERVICE "ServerLive", NULL, NULL);
    put_frame(&in, FRAME_DATA, FLAG_END_STREAM, 1, "\0\0\0\0\5ab", 7);
    refused(400, "the stream ends after 2 bytes of a message of 5");
}
END_TEST

START_TEST(second_messages_are_refused)
{
    put_call(&in, 1, SERVICE "ServerLive", NULL, NULL);
    put_frame(&in, FRAME_DATA, 0, 1, "\0\0\0\0\0\0\0\0\0\0", 10);
    refused(400, "more behind the message");
}
END_TEST

START_TEST(headers_are_bounded)
{
    char value[121];
    struct buffer block;
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    buffer_init(&block, 1 << 16);
    put_field(&block, ":method", "POST");
    put_field(&block, ":scheme", "http");
    put_field(&block, ":path", SERVICE "ServerLive");
    put_field(&block, ":authority", "localhost");
    for (size_t i = 0; i < 130; i++)
        put_field(&block, "padding", value);
    put_frame(&in, FRAME_HEADERS, FLAG_END_HEADERS, 1, block.data, 8000);
    in.data[in.length - 8000 - 9 + 4] = 0; /* more follows */
    put_frame(&in, 9, FLAG_END_HEADERS, 1, block.data + 8000, block.length - 8000);
    buffer_close(&block);
    refused(431, "the header has more than 16384 bytes");
}
END_TEST

START_TEST(what_is_no_grpc_gets_a_status)
{
    struct buffer block;
    buffer_init(&block, 1 << 12);
    put_field(&block, ":method", "GET");
    put_field(&block, ":scheme", "http");
    put_field(&block, ":path", "/");
    put_field(&block, ":authority", "localhost");
    put_frame(&in, FRAME_HEADERS, FLAG_END_HEADERS | FLAG_END_STREAM, 1, block.data, block.length);
    buffer_close(&block);
    refused(405, "gRPC takes POST");
}
END_TEST

START_TEST(http_1_is_refused)
{
    in.length = 0;
    buffer_text(&in, "GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert_int_eq(exchange_bytes(), -1);
    ck_assert_uint_eq(peer.finished, 0);
}
END_TEST

/* ---- clients that go ---- */

static void begin_kept_call(void)
{
    peer.keep = true;
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    put_message(&in, 1, "\x0A\x01m", 3);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.requests, 1);
    ck_assert_uint_eq(peer.finished, 0);
}

START_TEST(a_cancelled_call_is_answered_into_the_void)
{
    begin_kept_call();
    put_frame(&in, FRAME_RST_STREAM, 0, 1, "\0\0\0\x08", 4);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.gone, 1);
    ck_assert_uint_eq(peer.finished, 0);
    peer_answer(peer.kept);
    ck_assert_uint_eq(peer.finished, 1);
}
END_TEST

START_TEST(a_call_outlives_its_session)
{
    struct error err = ERROR_INIT;
    begin_kept_call();
    grpc_session_close(&peer.session);
    ck_assert_uint_eq(peer.gone, 1);
    error_set(&err, ERROR_DISCONNECTED, "the client went away");
    exchange_reply_error(peer.kept, &err);
    ck_assert_uint_eq(peer.finished, 1);
    ck_assert_int_eq(peer.status, 499);
}
END_TEST

START_TEST(a_header_that_http2_forbids_is_the_clients_fault)
{
    put_call(&in, 1, SERVICE "ServerLive", "Upper-Case", "x");
    refused(400, "the request is not as HTTP/2 has it: PROTOCOL_ERROR");
}
END_TEST

START_TEST(a_call_that_is_not_whole_is_reported)
{
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    put_frame(&in, FRAME_RST_STREAM, 0, 1, "\0\0\0\x08", 4);
    refused(499, "the client left before its request was whole");
}
END_TEST

/* ---- what has lasted too long ---- */

START_TEST(slow_requests_are_refused)
{
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    ck_assert_int_eq(exchange_bytes(), 0);
    grpc_session_expire(&peer.session, uv_hrtime() / 1000000 + 500);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.finished, 0);
    grpc_session_expire(&peer.session, uv_hrtime() / 1000000 + 1001);
    refused(408, "did not arrive whole");
}
END_TEST

START_TEST(idle_clients_are_told_to_go)
{
    ck_assert_int_eq(exchange_bytes(), 0);
    grpc_session_expire(&peer.session, uv_hrtime() / 1000000 + 1001);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert(has_frame(FRAME_GOAWAY));
    ck_assert(grpc_session_is_over(&peer.session));
}
END_TEST

START_TEST(floods_end_the_session)
{
    int result = 0;
    for (int i = 0; i < 3 * GRPC_IDLE_FRAMES_AT_ONCE && result == 0; i++) {
        put_frame(&in, FRAME_PING, 0, 0, "12345678", 8);
        result = exchange_bytes();
    }
    ck_assert(result == -1 || grpc_session_is_over(&peer.session));
    ck_assert(has_frame(FRAME_GOAWAY));
}
END_TEST

START_TEST(rapid_resets_end_the_session)
{
    int result = 0;
    for (uint32_t stream = 1; stream < 6 * GRPC_IDLE_FRAMES_AT_ONCE && result == 0; stream += 2) {
        put_call(&in, stream, SERVICE "ModelInfer", NULL, NULL);
        put_frame(&in, FRAME_RST_STREAM, 0, stream, "\0\0\0\x08", 4);
        result = exchange_bytes();
    }
    ck_assert(result == -1 || grpc_session_is_over(&peer.session));
    ck_assert_uint_lt(peer.finished, 2 * GRPC_IDLE_FRAMES_AT_ONCE);
}
END_TEST

START_TEST(calls_at_a_time_are_bounded)
{
    peer.keep = true;
    for (uint32_t i = 0; i < GRPC_MAX_STREAMS + 5; i++) {
        put_call(&in, 2 * i + 1, SERVICE "ModelReady", NULL, NULL);
        put_frame(&in, FRAME_DATA, 0, 2 * i + 1, "\0\0\0\0", 4);
    }
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.session.call_count, GRPC_MAX_STREAMS);
}
END_TEST

/* ---- draining ---- */

START_TEST(a_drain_finishes_calls)
{
    begin_kept_call();
    grpc_session_announce_drain(&peer.session);
    grpc_session_drain(&peer.session);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert(has_frame(FRAME_GOAWAY));
    put_call(&in, 3, SERVICE "ServerLive", NULL, NULL);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.session.call_count, 1);
    ck_assert(!grpc_session_is_over(&peer.session));
    peer_answer(peer.kept);
    ck_assert_int_eq(exchange_bytes(), 0);
    ck_assert_uint_eq(peer.finished, 1);
    ck_assert(grpc_session_is_over(&peer.session));
}
END_TEST

START_TEST(a_drain_refuses_what_is_not_whole)
{
    put_call(&in, 1, SERVICE "ModelReady", NULL, NULL);
    ck_assert_int_eq(exchange_bytes(), 0);
    grpc_session_refuse_unfinished(&peer.session);
    refused(408, "did not arrive whole");
}
END_TEST

/* ---- texts ---- */

START_TEST(timeouts_are_read)
{
    static const struct {
        const char *text;
        uint64_t expected; /* 0: refused */
    } CASES[] = {{"1S", 1000000}, {"250m", 250000},  {"7u", 7},
                 {"1n", 1},       {"2M", 120000000}, {"99999999H", 99999999 * UINT64_C(3600000000)},
                 {"", 0},         {"m", 0},          {"123456789S", 0},
                 {"1s", 0},       {"-1S", 0},        {"1S ", 0},
                 {"1", 0},        {"0m", 1}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        uint64_t microseconds = 0;
        struct error err = ERROR_INIT;
        int result = grpc_read_timeout(CASES[i].text, &microseconds, &err);
        ck_assert_int_eq(result, CASES[i].expected ? 0 : -1);
        ck_assert_uint_eq(microseconds, CASES[i].expected);
    }
}
END_TEST

START_TEST(messages_are_encoded)
{
    char message[GRPC_MESSAGE_BYTES], longest[ERROR_TEXT_BYTES];
    grpc_write_message("100 % 'Gr\xC3\xB6\xC3\x9F"
                       "e'\n",
                       message);
    ck_assert_str_eq(message, "100 %25 'Gr%C3%B6%C3%9Fe'%0A");
    memset(longest, '%', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    grpc_write_message(longest, message);
    ck_assert_uint_lt(strlen(message), sizeof message);
}
END_TEST

START_TEST(paths_are_those_of_routes)
{
    char path[GRPC_PATH_BYTES], name[GRPC_NAME_BYTES];
    struct error err = ERROR_INIT;
    const struct grpc_method *statistics = grpc_method_find(SERVICE "ModelStatistics");
    ck_assert_int_eq(grpc_method_path(statistics, "", "", path, &err), 0);
    ck_assert_str_eq(path, "/v2/models/stats");
    ck_assert_int_eq(grpc_method_path(statistics, "a:b", "7", path, &err), 0);
    ck_assert_str_eq(path, "/v2/models/a%3Ab/versions/7/stats");
    const struct grpc_method *metadata = grpc_method_find(SERVICE "ModelMetadata");
    ck_assert_int_eq(grpc_method_path(metadata, "stats", "", path, &err), 0);
    ck_assert_str_ne(path, "/v2/models/stats");
    ck_assert_ptr_null(grpc_method_find(SERVICE "Nothing"));
    memset(name, '/', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    ck_assert_int_eq(
        grpc_method_path(statistics, name, "/////////////////////////////// ", path, &err), 0);
    ck_assert_uint_lt(strlen(path), sizeof path);
}
END_TEST

static int run(const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create("grpc");
    TCase *tcase = tcase_create("grpc");
    tcase_set_timeout(tcase, TEST_SECONDS);
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(void)
{
    const TTest *const tests[] = {a_call_is_its_route,
                                  a_message_may_come_a_byte_at_a_time,
                                  a_message_may_come_in_many_frames,
                                  calls_are_refused_at_their_header,
                                  methods_that_do_not_exist_are_refused,
                                  compressed_calls_are_refused,
                                  compressed_messages_are_refused,
                                  long_messages_are_refused_by_their_length,
                                  cut_messages_are_refused,
                                  second_messages_are_refused,
                                  headers_are_bounded,
                                  what_is_no_grpc_gets_a_status,
                                  http_1_is_refused,
                                  a_cancelled_call_is_answered_into_the_void,
                                  a_call_outlives_its_session,
                                  a_header_that_http2_forbids_is_the_clients_fault,
                                  a_call_that_is_not_whole_is_reported,
                                  slow_requests_are_refused,
                                  idle_clients_are_told_to_go,
                                  floods_end_the_session,
                                  rapid_resets_end_the_session,
                                  calls_at_a_time_are_bounded,
                                  a_drain_finishes_calls,
                                  a_drain_refuses_what_is_not_whole,
                                  timeouts_are_read,
                                  messages_are_encoded,
                                  paths_are_those_of_routes};
    return run(tests, sizeof tests / sizeof *tests);
}

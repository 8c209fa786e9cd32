/* Requests, bodies and answers. */
#include "test_http_support.h"

/* --- requests and answers -------------------------------------------------------------------- */

START_TEST(an_answer_at_once)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /a%20b?c=d&e HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    ck_assert_str_eq("GET /a%20b body=0 encoding=- inference=-", response.body);
    ck_assert_ptr_nonnull(strstr(response.header, "Content-Type: application/json\r\n"));
    ck_assert_ptr_null(strstr(response.header, "Connection:"));
    WAIT_FOR(finished.count == 1);
    ck_assert_int_eq(200, finished.status);
    ck_assert_str_eq("GET", finished.method);
    ck_assert_str_eq("/a%20b", finished.path);
    ck_assert_uint_eq(1, http_connections(http));
    disconnect_client(client);
    WAIT_FOR(http_connections(http) == 0);
}
END_TEST

START_TEST(header_fields_are_handed_on)
{
    start();
    struct client *client = connect_client();
    send_text(client, "POST / HTTP/1.1\r\nhOsT: x\r\nContent-Encoding: gzip\r\n"
                      "Inference-Header-Content-Length: 12\r\nContent-Length: 2\r\n\r\nab");
    expect_status(client, 200);
    ck_assert_str_eq("POST / body=2 encoding=gzip inference=12", response.body);
    send_text(client, "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    ck_assert_str_eq("DELETE / body=0 encoding=- inference=-", response.body);
    disconnect_client(client);
}
END_TEST

/* Answers with the fields and parameters of the request that these tests ask about. */
static void reply_asked(struct exchange *exchange)
{
    static const char *const fields[] = {"Authorization", "X-List", "X-Empty", "X-Absent"};
    static const char *const parameters[] = {"window", "name", "empty", "bare", "bad", "absent"};
    struct buffer body;
    buffer_init(&body, MAX_BODY);
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < COUNT(fields); i++) {
            const char *value = exchange_header_in(exchange, fields[i]);
            buffer_format(&body, "[%s]", value ? value : "-");
        }
        for (int i = 0; i < COUNT(parameters); i++) {
            char text[16] = "-";
            struct error err = ERROR_INIT;
            int found = exchange_query(exchange, parameters[i], text, sizeof text, &err);
            buffer_format(&body, "(%d %s)", found, found < 0 ? err.text : text);
        }
    }
    buffer_format(&body, " %s %s", exchange->path, exchange->client);
    exchange_reply(exchange, 200, NULL, &body);
}

#define ASKED                                                                                      \
    "[Bearer a:b][one][][-](1 10)(1 a b+c&)(1 )(1 )"                                               \
    "(-1 query parameter bad: expected at most 15 bytes, percent-encoded)(0 -)"

START_TEST(any_header_field_and_query_parameter_can_be_asked_for)
{
    on_other_request = reply_asked;
    start();
    struct client *client = connect_client();
    send_text(
        client,
        "GET /a?windows=1&window=10&name=a+b%2Bc%26&empty=&bare&bad=%zz HTTP/1.1\r\nHost: x\r\n"
        "X-Authorization: no\r\nauthorization:\t Bearer a:b \t\r\nX-List: one\r\n"
        "X-List: two\r\nX-Empty: \r\n\r\n");
    expect_status(client, 200);
    ck_assert_str_eq(ASKED ASKED " /a 127.0.0.1", response.body);
    send_text(client, "GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    ck_assert_ptr_nonnull(strstr(response.body, "[-][-][-][-](0 -)(0 -)(0 -)(0 -)(0 -)(0 -)"));
    disconnect_client(client);
}
END_TEST

START_TEST(an_answer_one_turn_later)
{
    start();
    struct client *client = connect_client();
    for (int i = 0; i < 3; i++) {
        send_text(client, "GET /turn HTTP/1.1\r\nHost: x\r\n\r\n");
        expect_status(client, 200);
        ck_assert_str_eq("late", response.body);
    }
    disconnect_client(client);
}
END_TEST

START_TEST(an_answer_much_later)
{
    start();
    struct client *client = connect_client();
    for (int i = 0; i < 3; i++) {
        send_text(client, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
        WAIT_FOR(pending_count == 1);
        wait_ms((unsigned)i * 150); /* suspended briefly; long enough to be watched; longer */
        ck_assert_uint_eq(0, finished.count - (unsigned)i);
        answer_pending();
        expect_status(client, 200);
        ck_assert_str_eq("late", response.body);
        WAIT_FOR(finished.count == (unsigned)i + 1);
    }
    ck_assert_uint_eq(0, disconnects);
    disconnect_client(client);
}
END_TEST

/* Work that no descriptor announces must not wait for the next tick: that would take a minute in
 * all. */
START_TEST(the_loop_does_not_sleep_on_pipelined_requests)
{
    enum { REQUESTS = 600 };
    const uint64_t began = uv_hrtime();
    start();
    struct client *client = connect_client();
    for (int i = 0; i < REQUESTS; i++)
        send(client->fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, 0);
    while (finished.count < REQUESTS)
        uv_run(&loop, UV_RUN_ONCE);
    ck_assert_uint_lt(uv_hrtime() - began, UINT64_C(40000000000));
    disconnect_client(client);
}
END_TEST

START_TEST(the_loop_sleeps_while_an_answer_is_awaited)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(pending_count == 1);
    WAIT_FOR(uv_backend_timeout(&loop) != 0);
    answer_pending();
    ck_assert_int_eq(0, uv_backend_timeout(&loop));
    expect_status(client, 200);
    WAIT_FOR(uv_backend_timeout(&loop) != 0);
    disconnect_client(client);
}
END_TEST

/* Batching does this: the request that fills a batch brings the answers of the others. */
START_TEST(a_handler_may_answer_suspended_exchanges)
{
    start();
    struct client *waiting = connect_client(), *last = connect_client();
    send_text(waiting, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(pending_count == 1 && uv_backend_timeout(&loop) != 0); /* suspended */
    send_text(last, "GET /answer-the-others HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int turn = 0; turn < 20; turn++)
        uv_run(&loop, UV_RUN_NOWAIT); /* by then, and not by the next tick */
    ck_assert(take_response(waiting, false));
    ck_assert(take_response(last, false));
    disconnect_client(waiting);
    disconnect_client(last);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /turn HTTP/1.1\r\nHost: x\r\n\r\n"
                      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                      "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
                      "GET /last HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    ck_assert_str_eq("late", response.body);
    expect_status(client, 200);
    ck_assert_str_eq("abc", response.body);
    WAIT_FOR(pending_count == 1);
    answer_pending();
    expect_status(client, 200);
    ck_assert_str_eq("late", response.body);
    expect_status(client, 200);
    ck_assert_ptr_nonnull(strstr(response.body, "/last"));
    disconnect_client(client);
}
END_TEST

START_TEST(head_is_get_without_the_body)
{
    start();
    struct client *client = connect_client();
    send_text(client, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(take_response(client, true));
    ck_assert_int_eq(200, response.status);
    size_t announced = strtoul(strstr(response.header, "Content-Length: ") + 16, NULL, 10);
    send_text(client, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200); /* the HEAD's answer had no body */
    ck_assert_uint_eq(announced, response.body_length + strlen("HEAD") - strlen("GET"));
    disconnect_client(client);
}
END_TEST

START_TEST(http_1_0_closes_after_the_answer)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET / HTTP/1.0\r\n\r\n");
    expect_status(client, 200);
    WAIT_FOR((receive(client), client->closed));
    disconnect_client(client);
}
END_TEST

START_TEST(an_error_answer_is_json_with_its_headers)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /overloaded HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 429);
    ck_assert_str_eq("{\"error\": \"queue \\\"full\\\"?\"}", response.body); /* see error.c */
    ck_assert_ptr_nonnull(strstr(response.header, "Retry-After: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(response.header, "X-Reason: queue\r\n"));
    WAIT_FOR(finished.count == 1);
    ck_assert_str_eq("queue \"full\"?", finished.error);
    disconnect_client(client);
}
END_TEST

START_TEST(an_answer_that_failed_to_be_built_is_a_500)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /failed HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 500);
    ck_assert_msg(!strncmp(response.body, "{\"error\"", 8), "%s", response.body);
    disconnect_client(client);
}
END_TEST

/* --- bodies ---------------------------------------------------------------------------------- */

START_TEST(a_body_arrives_byte_for_byte)
{
    static char body[MAX_BODY];
    char header[128];
    start();
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)(i * 2654435761u >> 13);
    struct client *client = connect_client();
    snprintf(header, sizeof header, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
             MAX_BODY);
    send_text(client, header);
    send_bytes(client, body, 10);
    send_bytes(client, body + 10, sizeof body - 10);
    expect_status(client, 200);
    ck_assert_uint_eq(sizeof body, response.body_length);
    ck_assert_mem_eq(body, response.body, sizeof body);
    WAIT_FOR(finished.count == 1);
    ck_assert_uint_eq(sizeof body, finished.body_length);
    disconnect_client(client);
}
END_TEST

START_TEST(a_chunked_body_arrives_whole)
{
    start();
    struct client *client = connect_client();
    send_text(client, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
                      "3;extension=1\r\nabc\r\n");
    wait_ms(5);
    send_text(client, "A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n");
    expect_status(client, 200);
    ck_assert_str_eq("abc0123456789", response.body);
    disconnect_client(client);
}
END_TEST

START_TEST(expect_100_continue)
{
    start();
    struct client *client = connect_client();
    send_text(client, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                      "Expect: 100-continue\r\n\r\n");
    expect_status(client, 100);
    send_text(client, "hi");
    expect_status(client, 200);
    ck_assert_str_eq("hi", response.body);
    disconnect_client(client);
}
END_TEST

START_TEST(a_declared_body_too_large_is_refused_before_it_is_sent)
{
    start();
    struct client *client = connect_client();
    send_text(client, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n"
                      "Expect: 100-continue\r\n\r\n");
    expect_refusal(client, 413);
    WAIT_FOR(finished.count == 1);
    ck_assert_int_eq(413, finished.status);
    ck_assert_str_eq("/echo", finished.path);
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
}
END_TEST

/* A client that sends its whole body before it reads must get an answer, not a reset. Python's
 * http.client does that. */
START_TEST(a_body_too_large_is_refused_while_it_is_sent)
{
    static char body[4 << 20];
    char chunk[32];
    bool chunked = _i == 1;
    start();
    struct client *client = connect_client();
    send_text(client, chunked ? "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                              : "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n");
    for (size_t sent = 0; sent < sizeof body; sent += 65536) {
        snprintf(chunk, sizeof chunk, "%s10000\r\n", sent ? "\r\n" : "");
        if (chunked)
            send_text(client, chunk);
        ck_assert(send_bytes(client, body, 65536));
        wait_ms(1);
    }
    if (chunked)
        send_text(client, "\r\n0\r\n\r\n");
    expect_refusal(client, 413);
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_test(tests, an_answer_at_once);
    tcase_add_test(tests, header_fields_are_handed_on);
    tcase_add_test(tests, any_header_field_and_query_parameter_can_be_asked_for);
    tcase_add_test(tests, an_answer_one_turn_later);
    tcase_add_test(tests, an_answer_much_later);
    tcase_add_test(tests, the_loop_does_not_sleep_on_pipelined_requests);
    tcase_add_test(tests, the_loop_sleeps_while_an_answer_is_awaited);
    tcase_add_test(tests, a_handler_may_answer_suspended_exchanges);
    tcase_add_test(tests, pipelined_requests_are_answered_in_order);
    tcase_add_test(tests, head_is_get_without_the_body);
    tcase_add_test(tests, http_1_0_closes_after_the_answer);
    tcase_add_test(tests, an_error_answer_is_json_with_its_headers);
    tcase_add_test(tests, an_answer_that_failed_to_be_built_is_a_500);
    tcase_add_test(tests, a_body_arrives_byte_for_byte);
    tcase_add_test(tests, a_chunked_body_arrives_whole);
    tcase_add_test(tests, expect_100_continue);
    tcase_add_test(tests, a_declared_body_too_large_is_refused_before_it_is_sent);
    tcase_add_loop_test(tests, a_body_too_large_is_refused_while_it_is_sent, 0, 2);
    return http_tests_run("http", tests);
}

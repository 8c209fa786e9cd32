/* Requests that are refused before they reach the handler: always as JSON, once, and never read a
 * second way. test_http_framing.c has every rule. */
#include "test_http_support.h"

#define HOST "Host: x\r\n"

static const struct {
    int status;
    const char *request;
} refused[] = {
    /* two readings of the length: request smuggling */
    {400,
     "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: -3\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n"},
    {413, "POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length : 3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Leng: 3\r\n th\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST "X: 1\r\n folded\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "X: a\rb\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST ": x\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST ": x\r\nContent-Length: 3\r\n\r\nabc"},
    {400, "POST / HTTP/1.1\r\n" HOST ":\r\n"},
    {400, "POST / HTTP/1.1\r\n: x\r\n" HOST "\r\n"},
    {400, "POST / HTTP/1.1\n" HOST "\r\n"},
    {400, "POST / HTTP/1.1\r\nHost: x\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"},
    {400, "GET /a HTTP/1.1 /b HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a?b c HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a\tb HTTP/1.1\r\n" HOST "\r\n"},
    /* no HTTP */
    {400, "GARBAGE\r\n\r\n"},
    {400, "GET /\r\n\r\n"},
    {400, "GET / HTTP/x.y\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nno colon\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n-1\r\n"},
    {413, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"},
    {505, "GET / HTTP/2.0\r\n\r\n"},
    {505, "GET / HTTP/0.9\r\n\r\n"},
};

START_TEST(a_request_is_refused)
{
    start();
    struct client *client = connect_client();
    send_text(client, refused[_i].request);
    expect_refusal(client, refused[_i].status);
    WAIT_FOR(finished.count == 1);
    ck_assert_int_eq(refused[_i].status, finished.status);
    ck_assert_str_ne("", finished.error);
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
    WAIT_FOR(http_connections(http) == 0);
    ck_assert_uint_eq(1, finished.count);
}
END_TEST

START_TEST(a_nul_in_the_header_is_refused)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n";
    start();
    struct client *client = connect_client();
    send_bytes(client, request, sizeof request - 1);
    expect_refusal(client, 400);
    disconnect_client(client);
}
END_TEST

/* A request line, a field and cookies that do not fit the connection's memory. */
START_TEST(a_header_too_large_is_refused)
{
    static char request[100000];
    static const char *const formats[] = {"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n",
                                          "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n",
                                          "GET / HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n"};
    static const int statuses[] = {414, 431, 431};
    static char filler[60000];
    for (size_t i = 0; i + 1 < sizeof filler; i++)
        filler[i] = "a=b;"[i % 4];
    start();
    struct client *client = connect_client();
    snprintf(request, sizeof request, formats[_i], filler);
    send_text(client, request);
    expect_refusal(client, statuses[_i]);
    ck_assert_uint_eq(1, finished.count);
    disconnect_client(client);
}
END_TEST

START_TEST(a_header_of_24_kb_is_accepted)
{
    static char field[24 << 10], request[25 << 10];
    memset(field, 'x', sizeof field - 1);
    start();
    struct client *client = connect_client();
    snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n",
             field);
    send_text(client, request);
    expect_status(client, 200);
    disconnect_client(client);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_loop_test(tests, a_request_is_refused, 0, COUNT(refused));
    tcase_add_test(tests, a_nul_in_the_header_is_refused);
    tcase_add_loop_test(tests, a_header_too_large_is_refused, 0, 3);
    tcase_add_test(tests, a_header_of_24_kb_is_accepted);
    return http_tests_run("http_refusals", tests);
}

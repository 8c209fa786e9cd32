/* Connections over time: deadlines, clients that go, limits. */
#include "test_http_support.h"

/* --- time ------------------------------------------------------------------------------------ */

/* Sends a byte every few milliseconds until the server closes. */
static void drip(struct client *client, const char *byte)
{
    for (int i = 0; !client->closed; i++) {
        ck_assert_int_lt(i, PATIENCE_MS / 5);
        send_text(client, byte);
        wait_ms(5);
        receive(client);
    }
}

START_TEST(an_idle_connection_is_closed)
{
    options.idle_timeout_ms = 150;
    start();
    struct client *fresh = connect_client(), *used = connect_client();
    send_text(used, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(used, 200);
    WAIT_FOR((receive(fresh), receive(used), fresh->closed && used->closed));
    ck_assert_uint_eq(0, fresh->length + used->length);
    ck_assert_uint_eq(1, finished.count); /* no request, no report */
    disconnect_client(fresh);
    disconnect_client(used);
}
END_TEST

/* From the first byte on the request's deadline applies, not the idle timeout. */
START_TEST(a_dripping_header_is_refused)
{
    static const char *const begins[] = {"G", "GET /", "GET / HTTP/1.1\r\nX: "};
    options.request_timeout_ms = 150;
    start();
    struct client *client = connect_client();
    send_text(client, begins[_i]);
    drip(client, "A");
    expect_refusal(client, 408);
    ck_assert_int_eq(408, finished.status);
    ck_assert_str_eq(_i == 2 ? "/" : "", finished.path);
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
}
END_TEST

/* Empty lines before a request are not part of it. */
START_TEST(empty_lines_are_idle)
{
    options.idle_timeout_ms = 150;
    start();
    struct client *client = connect_client();
    drip(client, "\r\n");
    ck_assert_uint_eq(0, client->length);
    ck_assert_uint_eq(0, finished.count);
    disconnect_client(client);
}
END_TEST

START_TEST(a_slow_body_is_refused)
{
    options.request_timeout_ms = 150;
    start();
    struct client *client = connect_client();
    send_text(client, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n");
    if (_i == 0)
        drip(client, "a"); /* and stalls in the other case */
    expect_refusal(client, 408);
    WAIT_FOR(finished.count == 1);
    ck_assert_int_eq(408, finished.status);
    ck_assert_str_eq("/echo", finished.path);
    ck_assert_int_eq(_i == 0, finished.body_length > 0); /* what had come */
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
}
END_TEST

/* A chunk-size line that is too long is refused while more of it is on its way. Such a connection
 * ends with its client, though libmicrohttpd notices neither. */
START_TEST(a_connection_that_is_shut_is_closed)
{
    static char request[40000] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;";
    struct client *clients[5];
    options.request_timeout_ms = options.idle_timeout_ms = 150;
    start();
    memset(request + strlen(request), 'a', sizeof request - strlen(request));
    for (int i = 0; i < COUNT(clients); i++) {
        clients[i] = connect_client();
        send_bytes(clients[i], request, sizeof request);
    }
    WAIT_FOR(http_connections(http) == COUNT(clients));
    wait_ms(20);
    for (int i = 0; i < COUNT(clients); i++)
        disconnect_client(clients[i]);
    WAIT_FOR(http_connections(http) == 0);
}
END_TEST

START_TEST(a_client_that_does_not_read_is_closed)
{
    options.idle_timeout_ms = 150;
    start();
    struct client *client = connect_client();
    int small = 4096;
    setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_text(client, "GET /huge HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(requests == 1);
    wait_ms(300);
    ck_assert_uint_eq(1, http_connections(http)); /* 32 MB at the slowest rate take a while */
    disconnect_client(client);
    WAIT_FOR(http_connections(http) == 0);
    ck_assert_int_eq(499, finished.status);
}
END_TEST

/* --- clients that go ------------------------------------------------------------------------- */

START_TEST(a_client_gone_before_its_request_is_whole_is_reported)
{
    start();
    struct client *client = connect_client();
    send_text(client, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    wait_ms(5);
    disconnect_client(client);
    WAIT_FOR(finished.count == 1);
    ck_assert_int_eq(499, finished.status);
    ck_assert_uint_eq(0, requests);
}
END_TEST

/* The server sees the last bytes and the end of the connection at once. */
START_TEST(a_request_cut_off_by_a_hang_up_is_not_kept)
{
    static const char *const parts[] = {
        "POST /ec", "POST /echo HTTP/1.1\r\nHos",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"};
    start();
    struct client *client = connect_client();
    send_text(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    ck_assert_int_gt(send(client->fd, parts[_i], strlen(parts[_i]), MSG_NOSIGNAL), 0);
    disconnect_client(client);
    WAIT_FOR(http_connections(http) == 0);
}
END_TEST

/* nc -N and other clients close their sending side after the request. */
START_TEST(a_half_closed_client_gets_its_answer)
{
    start();
    struct client *client = connect_client();
    send_text(client, _i == 0 ? "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
                              : "GET /turn HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(client->fd, SHUT_WR);
    expect_status(client, 200);
    WAIT_FOR((receive(client), client->closed));
    disconnect_client(client);
}
END_TEST

/* However long the answer takes, and in whatever pieces libmicrohttpd sends it. */
START_TEST(a_half_closed_client_gets_a_late_answer)
{
    static const char *const requests_sent[] = {
        "GET /later HTTP/1.1\r\nHost: x\r\n\r\n", "GET /later HTTP/1.0\r\n\r\n",
        "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /later HTTP/1.1\r\nHost: x\r\n\r\n"};
    start();
    struct client *client = connect_client();
    send_text(client, requests_sent[_i]);
    shutdown(client->fd, SHUT_WR);
    for (int i = 0; i < (_i == 2 ? 2 : 1); i++) {
        WAIT_FOR(pending_count == 1);
        wait_ms(i == 0 ? 1300 : 300);
        ck_assert_uint_eq(0, disconnects);
        answer_pending();
        expect_status(client, 200);
        ck_assert_int_eq(0, strncmp(response.header, "HTTP/1.1 200 OK\r\n", 17));
        ck_assert_str_eq("late", response.body);
    }
    WAIT_FOR((receive(client), client->closed));
    ck_assert_uint_eq(0, client->length);
    ck_assert_int_eq(200, finished.status);
    disconnect_client(client);
}
END_TEST

START_TEST(a_client_that_closes_later_than_its_sending_side_is_noticed)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(client->fd, SHUT_WR);
    wait_ms(300);
    ck_assert_uint_eq(0, disconnects);
    receive(client);
    disconnect_client(client);
    WAIT_FOR(disconnects == 1);
    answer_pending();
    WAIT_FOR(http_connections(http) == 0);
}
END_TEST

START_TEST(a_client_gone_while_its_answer_is_awaited_is_noticed)
{
    start();
    struct client *client = connect_client();
    send_text(client, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(pending_count == 1);
    wait_ms((unsigned)_i * 250); /* at once; once it is watched */
    disconnect_client(client);
    WAIT_FOR(disconnects == 1);
    ck_assert_uint_eq(0, finished.count);
    answer_pending();
    WAIT_FOR(finished.count == 1);
    WAIT_FOR(http_connections(http) == 0);
    ck_assert_uint_eq(1, disconnects);
}
END_TEST

START_TEST(an_exchange_may_outlive_its_connection)
{
    start();
    reset_after_hand_over(on_disconnect);
    ck_assert_uint_eq(1, disconnects);
    ck_assert_uint_eq(1, finished.count);
    answer_pending();
    ck_assert_uint_eq(2, finished.count);
    ck_assert_str_eq("/later", finished.path);
}
END_TEST

static void answer_on_disconnect(struct exchange *exchange)
{
    disconnects++;
    pending_count = 0;
    reply_text(exchange, 200, "nobody hears this");
}

START_TEST(the_handler_may_answer_when_told_of_a_disconnect)
{
    start();
    reset_after_hand_over(answer_on_disconnect);
    ck_assert_uint_eq(2, finished.count);
    struct client *client = connect_client();
    send_text(client, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(pending_count == 1);
    pending[0]->on_disconnect = answer_on_disconnect;
    wait_ms(250); /* suspended and watched by now */
    disconnect_client(client);
    WAIT_FOR(finished.count == 3 && http_connections(http) == 0);
    ck_assert_uint_eq(2, disconnects);
}
END_TEST

/* --- limits ---------------------------------------------------------------------------------- */

static struct client *ask(const char *path)
{
    struct client *client = connect_client();
    char request[100];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    send_text(client, request);
    return client;
}

START_TEST(the_longest_idle_connection_gives_way)
{
    max_connections = 3;
    start();
    struct client *silent = connect_client(), *first = ask("/"), *second = ask("/");
    expect_status(first, 200);
    expect_status(second, 200);
    wait_ms(30);
    send_text(silent, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(silent, 200);
    struct client *newcomer = ask("/");
    expect_status(newcomer, 200);
    ck_assert_ptr_null(strstr(response.header, "Connection: close"));
    WAIT_FOR((receive(first), first->closed));
    receive(silent);
    receive(second);
    ck_assert(!silent->closed && !second->closed);
    ck_assert_uint_eq(3, http_connections(http));
    disconnect_client(silent);
    disconnect_client(first);
    disconnect_client(second);
    disconnect_client(newcomer);
}
END_TEST

/* Every slot is taken by a request that is being served. */
static void take_all(struct client *busy[static 2])
{
    max_connections = 2;
    start();
    busy[0] = ask("/later");
    busy[1] = ask("/later");
    WAIT_FOR(pending_count == 2);
}

static void release_all(struct client *busy[static 2])
{
    answer_pending();
    expect_status(busy[0], 200);
    expect_status(busy[1], 200);
    disconnect_client(busy[0]);
    disconnect_client(busy[1]);
    WAIT_FOR(http_connections(http) == 0);
}

START_TEST(a_request_waits_for_a_slot)
{
    struct client *busy[2];
    take_all(busy);
    struct client *waiting = ask("/"), *gone = ask("/");
    WAIT_FOR(http_connections(http) == 4);
    disconnect_client(gone);
    wait_ms(30);
    receive(waiting);
    ck_assert_uint_eq(0, waiting->length);
    ck_assert_uint_eq(2, requests);
    answer_pending();
    expect_status(waiting, 200);
    ck_assert_ptr_null(strstr(response.header, "Connection: close"));
    disconnect_client(waiting);
    release_all(busy);
    for (int i = 0; i < 2; i++) {
        busy[i] = ask("/later");
        WAIT_FOR(pending_count == (size_t)i + 1); /* no slot is lost */
    }
    release_all(busy);
}
END_TEST

START_TEST(a_request_that_waits_too_long_for_a_slot_is_refused)
{
    struct client *busy[2];
    take_all(busy);
    struct client *waiting = ask("/");
    expect_refusal(waiting, 503);
    ck_assert_ptr_nonnull(strstr(response.header, "Retry-After: 1\r\n"));
    ck_assert_int_eq(503, finished.status);
    ck_assert_uint_eq(2, requests);
    disconnect_client(waiting);
    release_all(busy);
}
END_TEST

START_TEST(health_is_answered_when_every_connection_is_taken)
{
    enum { HARMFUL = 120 };
    static const char *const parts[] = {"", "GET /", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"};
    struct client *busy[2], *harmful[HARMFUL];
    take_all(busy);
    for (int i = 0; i < HARMFUL; i++) {
        harmful[i] = connect_client();
        send_text(harmful[i], parts[i % COUNT(parts)]);
    }
    struct client *probe = ask("/health");
    expect_status(probe, 200);
    ck_assert_ptr_nonnull(strstr(response.header, "Connection: close\r\n"));
    ck_assert_uint_le(http_connections(http), 2 + 2 * 16 + 16);
    for (int i = 0; i < HARMFUL; i++)
        disconnect_client(harmful[i]);
    disconnect_client(probe);
    release_all(busy);
}
END_TEST

/* All of the body but its last byte. */
static struct client *upload(bool chunked, size_t length)
{
    static char body[MAX_BODY];
    struct client *client = connect_client();
    char header[200];
    snprintf(header, sizeof header,
             chunked ? "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n"
                     : "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
             length);
    send_text(client, header);
    send_bytes(client, memset(body, 'x', sizeof body), length - 1);
    return client;
}

static void finish(struct client *client, bool chunked)
{
    send_text(client, chunked ? "x\r\n0\r\n\r\n" : "x");
    expect_status(client, 200);
    disconnect_client(client);
}

START_TEST(bodies_are_bounded_in_total)
{
    bool chunked = _i == 1;
    max_total_body_bytes = MAX_BODY;
    options.request_timeout_ms = 400;
    start();
    for (int round = 0; round < 4; round++) { /* all counted memory is returned */
        struct client *first = upload(chunked, MAX_BODY / 2),
                      *second = upload(chunked, MAX_BODY / 2);
        wait_ms(20);
        struct client *third = upload(chunked, 10000);
        expect_refusal(third, 503);
        ck_assert_ptr_nonnull(strstr(response.header, "Retry-After: 1\r\n"));
        disconnect_client(third);
        finish(first, chunked);
        if (round == 0)
            finish(second, chunked);
        else if (round == 1) {
            expect_refusal(second, 408);
            disconnect_client(second);
        } else
            disconnect_client(second);
        WAIT_FOR(http_connections(http) == 0);
    }
    finish(upload(chunked, MAX_BODY), chunked);
}
END_TEST

START_TEST(a_body_that_is_only_announced_takes_no_memory)
{
    max_total_body_bytes = MAX_BODY;
    start();
    struct client *client = connect_client();
    send_text(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    wait_ms(20);
    finish(upload(false, MAX_BODY), false);
    disconnect_client(client);
}
END_TEST

START_TEST(one_address_cannot_take_all_connections)
{
    max_connections_per_ip = 2;
    start();
    struct client *first = connect_client(), *second = connect_client();
    WAIT_FOR(http_connections(http) == 2);
    struct client *third = connect_client();
    WAIT_FOR((receive(third), third->closed));
    disconnect_client(third);
    disconnect_client(first);
    WAIT_FOR(http_connections(http) == 1);
    struct client *fourth = ask("/"), *fifth = connect_client(); /* at once */
    expect_status(fourth, 200);
    WAIT_FOR((receive(fifth), fifth->closed));
    disconnect_client(second);
    disconnect_client(fourth);
    disconnect_client(fifth);
    WAIT_FOR(http_connections(http) == 0);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_test(tests, an_idle_connection_is_closed);
    tcase_add_loop_test(tests, a_dripping_header_is_refused, 0, 3);
    tcase_add_test(tests, empty_lines_are_idle);
    tcase_add_loop_test(tests, a_slow_body_is_refused, 0, 2);
    tcase_add_test(tests, a_connection_that_is_shut_is_closed);
    tcase_add_test(tests, a_client_that_does_not_read_is_closed);
    tcase_add_test(tests, a_client_gone_before_its_request_is_whole_is_reported);
    tcase_add_loop_test(tests, a_request_cut_off_by_a_hang_up_is_not_kept, 0, 3);
    tcase_add_loop_test(tests, a_half_closed_client_gets_its_answer, 0, 2);
    tcase_add_loop_test(tests, a_half_closed_client_gets_a_late_answer, 0, 3);
    tcase_add_test(tests, a_client_that_closes_later_than_its_sending_side_is_noticed);
    tcase_add_loop_test(tests, a_client_gone_while_its_answer_is_awaited_is_noticed, 0, 2);
    tcase_add_test(tests, an_exchange_may_outlive_its_connection);
    tcase_add_test(tests, the_handler_may_answer_when_told_of_a_disconnect);
    tcase_add_test(tests, the_longest_idle_connection_gives_way);
    tcase_add_test(tests, a_request_waits_for_a_slot);
    tcase_add_test(tests, a_request_that_waits_too_long_for_a_slot_is_refused);
    tcase_add_test(tests, health_is_answered_when_every_connection_is_taken);
    tcase_add_loop_test(tests, bodies_are_bounded_in_total, 0, 2);
    tcase_add_test(tests, a_body_that_is_only_announced_takes_no_memory);
    tcase_add_test(tests, one_address_cannot_take_all_connections);
    return http_tests_run("http_connection", tests);
}

/* Start and stop of the HTTP server: listening, draining, closing. */
#include <sys/resource.h>

#include "server/http/http_listen.h"
#include "test_http_support.h"

/* --- draining -------------------------------------------------------------------------------- */

START_TEST(draining_finishes_accepted_work)
{
    start();
    struct client *busy = connect_client(), *uploading = connect_client(), *idle = connect_client();
    send_text(busy, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(uploading, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    WAIT_FOR(pending_count == 1 && http_connections(http) == 3);
    struct client *backlog = connect_client(); /* accepted by the kernel, not yet by the server */
    uint16_t port = http_port(http);
    http_drain(http, 50, PATIENCE_MS, on_drained, &loop);
    WAIT_FOR((receive(idle), idle->closed));
    send_text(backlog, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert(!drained);
    answer_pending();
    expect_status(busy, 200);
    ck_assert_ptr_nonnull(strstr(response.header, "Connection: close\r\n"));
    wait_ms(250); /* longer than the grace: the upload is not cut off */
    send_text(uploading, "cd");
    expect_status(uploading, 200);
    ck_assert_str_eq("abcd", response.body);
    WAIT_FOR(drained);

    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_int_eq(-1, connect(fd, (struct sockaddr *)&address, sizeof address));
    close(fd);
    disconnect_client(busy);
    disconnect_client(uploading);
    disconnect_client(idle);
    disconnect_client(backlog);
}
END_TEST

START_TEST(draining_serves_the_backlog_beyond_the_connection_limit)
{
    enum { CLIENTS = 12 };
    struct client *clients[CLIENTS];
    max_connections = 2;
    start();
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_client();
        send(clients[i]->fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, 0);
    }
    http_drain(http, PATIENCE_MS, PATIENCE_MS, on_drained, &loop);
    for (int i = 0; i < CLIENTS; i++)
        expect_status(clients[i], 200);
    WAIT_FOR(drained);
    for (int i = 0; i < CLIENTS; i++)
        disconnect_client(clients[i]);
}
END_TEST

START_TEST(draining_waits_for_the_answer_to_a_client_that_is_gone)
{
    start();
    reset_after_hand_over(on_disconnect);
    http_drain(http, 0, PATIENCE_MS, on_drained, &loop);
    WAIT_FOR(http_connections(http) == 0);
    wait_ms(50);
    ck_assert(!drained);
    answer_pending();
    WAIT_FOR(drained);
}
END_TEST

enum { AN_HOUR_MS = 3600000 };

/* Each of them would delay the drain until its own deadline. */
START_TEST(slow_clients_do_not_hold_draining_up)
{
    static const char *const unfinished[] = {
        "GET /", "GET / HTTP/1.1\r\nHo",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"};
    options.request_timeout_ms = options.idle_timeout_ms = AN_HOUR_MS;
    start();
    struct client *client = connect_client(), *kept = connect_client();
    send_text(kept, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(kept, 200);
    send_text(client, unfinished[_i]);
    wait_ms(5);
    http_drain(http, 50, 600, on_drained, &loop);
    send_text(kept, unfinished[_i]); /* begun after the drain */
    if (_i > 0) {
        expect_refusal(client, 408);
        expect_refusal(kept, 408);
        ck_assert_int_eq(408, finished.status);
    }
    WAIT_FOR((receive(client), receive(kept), client->closed && kept->closed));
    disconnect_client(client);
    disconnect_client(kept);
    WAIT_FOR(drained);
}
END_TEST

START_TEST(clients_that_take_nothing_do_not_hold_draining_up)
{
    options.request_timeout_ms = options.idle_timeout_ms = AN_HOUR_MS;
    start();
    struct client *answered = connect_client(), *refused = connect_client();
    int small = 4096;
    setsockopt(answered->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_text(answered, "GET /huge HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(refused, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n");
    WAIT_FOR(requests == 1 && finished.count == 1);
    http_drain(http, 50, 600, on_drained, &loop);
    WAIT_FOR(drained);
    disconnect_client(answered);
    disconnect_client(refused);
}
END_TEST

static unsigned lost;

static void on_lost(const struct exchange *exchange, void *context)
{
    ck_assert_ptr_eq(&loop, context);
    ck_assert_str_eq("/later", exchange->path);
    lost++;
}

START_TEST(a_request_without_its_answer_is_lost)
{
    start();
    struct client *owed = connect_client(), *gone = connect_client(), *slow = connect_client();
    send_text(owed, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(gone, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(slow, "GET / HTTP/1.1\r\nHo");
    WAIT_FOR(pending_count == 2);
    disconnect_client(gone);
    WAIT_FOR(disconnects == 1);
    http_drain(http, 0, AN_HOUR_MS, on_drained, &loop);
    ck_assert_uint_eq(1, http_drain_end(http, on_lost, &loop));
    ck_assert_uint_eq(1, lost);
    answer_pending();
    expect_status(owed, 200);
    wait_ms(250);
    ck_assert(!drained); /* the drain has failed: its end is not reported */
    http_close(http);
    http = NULL;
    disconnect_client(owed);
    disconnect_client(slow);
}
END_TEST

START_TEST(nothing_is_lost_with_a_request_that_is_not_whole)
{
    start();
    struct client *slow = connect_client();
    send_text(slow, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    WAIT_FOR(http_connections(http) == 1);
    http_drain(http, 0, AN_HOUR_MS, on_drained, &loop);
    ck_assert_uint_eq(0, http_drain_end(http, on_lost, &loop));
    ck_assert(drained);
    disconnect_client(slow);
}
END_TEST

START_TEST(an_idle_server_drains_at_once_and_only_later_in_the_loop)
{
    start();
    http_drain(http, PATIENCE_MS, PATIENCE_MS, on_drained, &loop);
    ck_assert(!drained);
    WAIT_FOR(drained);
}
END_TEST

START_TEST(closing_without_draining)
{
    start();
    struct client *client = connect_client();
    send_text(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    WAIT_FOR(http_connections(http) == 1);
    wait_ms(5);
    http_close(http);
    http = NULL;
    disconnect_client(client);
}
END_TEST

/* --- listening ------------------------------------------------------------------------------- */

static void expect_start_error(const char *text)
{
    struct http_callbacks callbacks = {.context = &loop,
                                       .is_vital = is_vital,
                                       .on_request = on_request,
                                       .on_finished = on_finished};
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(http_new(&loop, &options, &callbacks, &err));
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
}

START_TEST(what_cannot_be_listened_on_is_said)
{
    start();
    options.port = http_port(http);
    expect_start_error("port");
    expect_start_error("Address already in use");
    options.host = "no such host";
    expect_start_error("cannot resolve host \"no such host\"");
    options.host = "192.0.2.1";
    expect_start_error("cannot listen on 192.0.2.1");
    options.host = "127.0.0.1";
}
END_TEST

/* Sets the limit of open files, as a container does; each test has its own process. */
static void allow_files(rlim_t count)
{
    const struct rlimit limit = {count, count};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

START_TEST(connections_adapt_to_the_limit_of_open_files)
{
    struct error err = ERROR_INIT;
    unsigned connections;
    allow_files(2048);
    ck_assert_int_eq(http_limit_connections(0, 1, &connections, &err), 0);
    ck_assert_uint_eq(connections, HTTP_DEFAULT_CONNECTIONS);
    allow_files(1024);
    ck_assert_int_eq(http_limit_connections(0, 1, &connections, &err), 0);
    ck_assert_uint_eq(connections, 920);
    ck_assert_int_eq(http_limit_connections(0, 4, &connections, &err), 0);
    ck_assert_uint_eq(connections, 752);
    ck_assert_int_eq(http_limit_connections(920, 1, &connections, &err), 0);
    ck_assert_int_eq(http_limit_connections(921, 1, &connections, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "921 connections need 1025 open files, but at most "
                                           "1024 are allowed"));
    ck_assert_ptr_nonnull(strstr(err.text, "raise that limit or lower max_connections"));
    allow_files(64);
    ck_assert_int_eq(http_limit_connections(0, 1, &connections, NULL), -1);
}
END_TEST

START_TEST(ipv6)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd); /* a machine without IPv6 */
        return;
    }
    close(fd);
    options.host = "::1";
    start();
    struct client *client = calloc(1, sizeof *client);
    client->fd = socket(AF_INET6, SOCK_STREAM, 0);
    address.sin6_port = htons(http_port(http));
    ck_assert_int_eq(0, connect(client->fd, (struct sockaddr *)&address, sizeof address));
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
    send_text(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    disconnect_client(client);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_test(tests, draining_finishes_accepted_work);
    tcase_add_test(tests, draining_serves_the_backlog_beyond_the_connection_limit);
    tcase_add_test(tests, draining_waits_for_the_answer_to_a_client_that_is_gone);
    tcase_add_loop_test(tests, slow_clients_do_not_hold_draining_up, 0, 3);
    tcase_add_test(tests, clients_that_take_nothing_do_not_hold_draining_up);
    tcase_add_test(tests, a_request_without_its_answer_is_lost);
    tcase_add_test(tests, nothing_is_lost_with_a_request_that_is_not_whole);
    tcase_add_test(tests, an_idle_server_drains_at_once_and_only_later_in_the_loop);
    tcase_add_test(tests, closing_without_draining);
    tcase_add_test(tests, what_cannot_be_listened_on_is_said);
    tcase_add_test(tests, connections_adapt_to_the_limit_of_open_files);
    tcase_add_test(tests, ipv6);
    return http_tests_run("http_drain", tests);
}

/* Who gives way when every slot is taken: never a client whose request is on its way, however late
 * the loop is. */
#include <sys/syscall.h>

#include "test_http_support.h"

/* Takes the place of the library's: what another loop does just when bytes have left a socket. */
static void (*on_received)(void);

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t count = syscall(SYS_recvmsg, fd, message, flags);
    if (count > 0 && on_received)
        on_received();
    return count;
}

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/* The loop does not run meanwhile. */
static void send_unseen(struct client *client)
{
    ck_assert_int_eq(send(client->fd, REQUEST, strlen(REQUEST), MSG_NOSIGNAL),
                     (ssize_t)strlen(REQUEST));
}

static void expect_answer(struct client *client, int status)
{
    expect_status(client, status);
    disconnect_client(client);
}

static struct client *idle_client(void)
{
    struct client *client = connect_client();
    send_text(client, REQUEST);
    expect_status(client, 200);
    return client;
}

static bool gave_way;

static void want_a_slot(void)
{
    on_received = NULL;
    gave_way = http_limits_close_idle(options.limits);
}

START_TEST(a_request_that_is_being_read_does_not_give_way)
{
    start();
    struct client *client = idle_client();
    wait_ms(30);
    on_received = want_a_slot;
    send_text(client, REQUEST);
    WAIT_FOR(!on_received);
    ck_assert(!gave_way);
    expect_status(client, 200);
    wait_ms(30);
    want_a_slot();
    ck_assert(gave_way); /* it is idle again */
    WAIT_FOR((receive(client), client->closed));
    disconnect_client(client);
}
END_TEST

/* A client beyond the limit may take its time with its request. */
START_TEST(an_unread_request_does_not_give_way)
{
    enum { RESERVE = 16 };
    struct client *busy[2], *late[RESERVE];
    max_connections = COUNT(busy);
    start();
    for (int i = 0; i < COUNT(busy); i++) {
        busy[i] = connect_client();
        send_text(busy[i], "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    WAIT_FOR(pending_count == COUNT(busy));
    for (int i = 0; i < RESERVE; i++)
        late[i] = connect_client();
    WAIT_FOR(http_connections(http) == COUNT(busy) + RESERVE);
    wait_ms(30);
    for (int i = 0; i < RESERVE; i++)
        send_unseen(late[i]);
    struct client *newcomer = connect_client();
    send_unseen(newcomer);
    for (int i = 0; i < RESERVE; i++)
        expect_answer(late[i], 503);
    expect_answer(newcomer, 503);
    answer_pending();
    for (int i = 0; i < COUNT(busy); i++)
        expect_answer(busy[i], 200);
}
END_TEST

static void delay(uv_check_t *check)
{
    uv_check_stop(check);
    usleep(30000);
}

/* Its request may be on its way, though the turn of the loop in which it came is long. */
START_TEST(a_new_connection_does_not_give_way)
{
    uv_check_t late;
    struct client *idle[2], *new[3];
    max_connections = COUNT(idle);
    start();
    for (int i = 0; i < COUNT(idle); i++)
        idle[i] = idle_client();
    wait_ms(30);
    uv_check_init(&loop, &late);
    uv_check_start(&late, delay);
    for (int i = 0; i < COUNT(new); i++)
        new[i] = connect_client();
    while (uv_is_active((uv_handle_t *)&late))
        uv_run(&loop, UV_RUN_NOWAIT);
    uv_close((uv_handle_t *)&late, NULL);
    for (int i = 0; i < COUNT(idle); i++) {
        WAIT_FOR((receive(idle[i]), idle[i]->closed));
        disconnect_client(idle[i]);
    }
    for (int i = 0; i < COUNT(new); i++)
        send_unseen(new[i]);
    for (int i = 0; i < COUNT(new); i++)
        expect_answer(new[i], 200);
}
END_TEST

/* Whoever has an address of IPv6 has 2^64 of them. */
START_TEST(a_network_of_ipv6_is_one_client)
{
    static const char *const SAME[] = {"2001:db8:0:1::1", "2001:db8:0:1:ffff::2"};
    static const char *const OTHERS[] = {"2001:db8:0:2::1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"};
    struct error err = ERROR_INIT;
    struct http_limits *limits = http_limits_new(16, 2, MAX_BODY, &err);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    struct sockaddr *from = (struct sockaddr *)&address;
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(1, inet_pton(AF_INET6, SAME[i], &address.sin6_addr));
        ck_assert(http_limits_take_address(limits, from));
    }
    ck_assert(!http_limits_admit(limits, from));
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        ck_assert_int_eq(1, inet_pton(AF_INET6, OTHERS[i], &address.sin6_addr));
        for (size_t j = 0; j < 2; j++)
            ck_assert(http_limits_take_address(limits, from));
        http_limits_return_address(limits, from);
        http_limits_return_address(limits, from);
    }
    ck_assert_int_eq(1, inet_pton(AF_INET6, SAME[0], &address.sin6_addr));
    http_limits_return_address(limits, from);
    http_limits_return_address(limits, from);
    ck_assert(http_limits_admit(limits, from));
    http_limits_free(limits);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_test(tests, a_request_that_is_being_read_does_not_give_way);
    tcase_add_test(tests, an_unread_request_does_not_give_way);
    tcase_add_test(tests, a_new_connection_does_not_give_way);
    tcase_add_test(tests, a_network_of_ipv6_is_one_client);
    return http_tests_run("http_slots", tests);
}

/* A collector of traces that a thread plays: what it says, and that nobody waits longer for it than
 * is allowed. */
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/trace.h"
#include "tests/unit/patience.h"
#include "tests/unit/support.h"

enum { PATIENCE_MS = PATIENCE_SECONDS * 1000 };

struct player {
    uv_thread_t thread;
    int listen_fd;
    const char *says; /* and then, a byte at a time, blanks until the peer has left */
    bool drips;
    bool ipv6;
    char request[1024];
    struct trace_collector collector;
};

static void play(void *context)
{
    struct player *player = context;
    int fd = accept(player->listen_fd, NULL, NULL);
    ssize_t got = read(fd, player->request, sizeof player->request - 1);
    ck_assert(got > 0);
    player->request[got] = '\0';
    ck_assert(write(fd, player->says, strlen(player->says)) >= 0);
    while (player->drips && write(fd, " ", 1) == 1)
        usleep(10000);
    for (char rest[1024]; read(fd, rest, sizeof rest) > 0;)
        ;
    close(fd);
}

static void start(struct player *player)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET,
                               .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    void *address = player->ipv6 ? (void *)&six : &four;
    socklen_t length = player->ipv6 ? sizeof six : sizeof four;
    char url[64];
    player->listen_fd = socket(player->ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(player->listen_fd, address, length), 0);
    ck_assert_int_eq(listen(player->listen_fd, 1), 0);
    ck_assert_int_eq(getsockname(player->listen_fd, address, &length), 0);
    if (player->ipv6)
        snprintf(url, sizeof url, "http://[::1]:%u", ntohs(six.sin6_port));
    else
        snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(four.sin_port));
    ck_assert_int_eq(trace_collector_read(&player->collector, url, &(struct error)ERROR_INIT), 0);
    ck_assert_int_eq(uv_thread_create(&player->thread, play, player), 0);
}

static int post(struct player *player, unsigned patience_ms, struct error *err)
{
    struct buffer body;
    buffer_init(&body, 64);
    buffer_format(&body, "{}");
    start(player);
    int result =
        trace_post(&player->collector, &body, uv_hrtime() + (uint64_t)patience_ms * 1000000, err);
    uv_thread_join(&player->thread);
    close(player->listen_fd);
    buffer_close(&body);
    return result;
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof any) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

/* An address of IPv6 is in brackets there, too, or its end would be taken for the port. */
START_TEST(the_collector_is_told_its_own_name)
{
    struct player player = {.says = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    struct error err = ERROR_INIT;
    char host[64];
    ck_assert_msg(post(&player, PATIENCE_MS, &err) == 0, "%s", err.text);
    snprintf(host, sizeof host, "\r\nHost: 127.0.0.1:%s\r\n", player.collector.port);
    ck_assert_ptr_nonnull(strstr(player.request, host));
    player.ipv6 = has_ipv6();
    if (!player.ipv6)
        return;
    ck_assert_msg(post(&player, PATIENCE_MS, &err) == 0, "%s", err.text);
    snprintf(host, sizeof host, "\r\nHost: [::1]:%s\r\n", player.collector.port);
    ck_assert_msg(strstr(player.request, host) != NULL, "%s", player.request);
}
END_TEST

/* Were the connection's end waited for, this would never end. */
START_TEST(the_end_of_the_answer_is_seen)
{
    struct player player = {.says = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"};
    struct error err = ERROR_INIT;
    ck_assert_msg(post(&player, PATIENCE_MS, &err) == 0, "%s", err.text);
    player.says = "HTTP/1.1 503 Busy\r\nContent-Length:0\r\n\r\n";
    ck_assert_int_eq(post(&player, PATIENCE_MS, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "it answered 'HTTP/1.1 503 Busy', expected status 200"));
}
END_TEST

START_TEST(who_says_nothing_is_not_waited_for)
{
    struct player player = {.says = ""};
    struct error err = ERROR_INIT;
    ck_assert_int_eq(post(&player, 50, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "it did not answer in time"));
}
END_TEST

START_TEST(nor_is_who_never_ends)
{
    struct player player = {.says = "HTTP/1.1 200 OK\r\n", .drips = true};
    struct error err = ERROR_INIT;
    ck_assert_int_eq(post(&player, 100, &err), 0); /* it has said that it took it */
}
END_TEST

START_TEST(who_is_not_there)
{
    struct player player = {.says = ""};
    struct error err = ERROR_INIT;
    struct buffer body;
    ck_assert_int_eq(post(&player, 50, &err), -1);
    buffer_init(&body, 64);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(
        trace_post(&player.collector, &body, uv_hrtime() + (uint64_t)PATIENCE_MS * 1000000, &err),
        -1);
    ck_assert_ptr_nonnull(strstr(err.text, "Connection refused"));
    buffer_close(&body);
}
END_TEST

START_TEST(a_collector_is_asked_without_a_password)
{
    static const char *const URLS[] = {"http://name:secret@host:4318", "http://name:secret@host",
                                       "https://name:secret@host", "name:secret@host",
                                       "http://secret@host/v1/traces"};
    for (size_t i = 0; i < sizeof URLS / sizeof *URLS; i++) {
        struct trace_collector collector;
        struct error err = ERROR_INIT;
        ck_assert_int_eq(trace_collector_read(&collector, URLS[i], &err), -1);
        ck_assert_msg(!strstr(err.text, "secret") && strstr(err.text, "***@host"), "%s", err.text);
    }
}
END_TEST

static void begin(void)
{
    signal(SIGPIPE, SIG_IGN);
}

TEST_MAIN_WITH("trace post", begin, NULL, the_collector_is_told_its_own_name,
               the_end_of_the_answer_is_seen, who_says_nothing_is_not_waited_for,
               nor_is_who_never_ends, who_is_not_there, a_collector_is_asked_without_a_password)

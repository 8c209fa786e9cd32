/* Shared by the HTTP tests: a server and its clients in one thread, on real loopback sockets. A
 * client that waits runs the loop until its condition holds, so nothing depends on time except the
 * timeouts under test. Every test ends by draining the server and checking that nothing is left. */
#ifndef TEST_HTTP_SUPPORT_H
#define TEST_HTTP_SUPPORT_H

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "patience.h"
#include "server/http/http.h"
#include "server/http/http_limits.h"

enum { PATIENCE_MS = PATIENCE_SECONDS * 1000, MAX_BODY = 100000, PENDING_MAX = 16 };

static uv_loop_t loop;
static struct http *http;
static bool drained;

/* --- the server under test ------------------------------------------------------------------- */

static struct http_options options;
static unsigned max_connections = 20, max_connections_per_ip;
static size_t max_total_body_bytes = 10 * MAX_BODY;

/* Exchanges whose answer is awaited: /later until the test answers, /turn for one loop turn. */
static struct exchange *pending[PENDING_MAX];
static size_t pending_count;
static uv_idle_t next_turn;

static unsigned requests, disconnects;

/* The arguments of the last call of on_finished(). */
static struct {
    unsigned count;
    int status;
    size_t body_length;
    char method[32], path[256], error[512];
} finished;

static inline void reply_text(struct exchange *exchange, int status, const char *text)
{
    struct buffer body;
    buffer_init(&body, MAX_BODY);
    buffer_text(&body, text);
    exchange_reply(exchange, status, "text/plain", &body);
}

static inline void reply_description(struct exchange *exchange)
{
    struct buffer body;
    const char *encoding = exchange_header_in(exchange, "content-encoding");
    const char *inference = exchange_header_in(exchange, "Inference-Header-Content-Length");
    buffer_init(&body, MAX_BODY);
    buffer_format(&body, "%s %s body=%zu encoding=%s inference=%s", exchange->method_text,
                  exchange->path, exchange->body_length, encoding ? encoding : "-",
                  inference ? inference : "-");
    exchange_reply(exchange, 200, NULL, &body);
}

static inline void reply_echo(struct exchange *exchange)
{
    struct buffer body;
    buffer_init(&body, MAX_BODY);
    buffer_append(&body, exchange->body, exchange->body_length);
    exchange_reply(exchange, 200, "application/octet-stream", &body);
}

static inline void reply_huge(struct exchange *exchange)
{
    struct buffer body;
    size_t bytes = 32 << 20;
    buffer_init(&body, bytes);
    memset(buffer_reserve(&body, bytes), 'x', bytes);
    body.length = bytes;
    exchange_reply(exchange, 200, NULL, &body);
}

static inline void reply_failed(struct exchange *exchange)
{
    struct buffer body;
    buffer_init(&body, 4);
    buffer_text(&body, "more than fits");
    exchange_reply(exchange, 200, "text/plain", &body);
}

static inline void reply_overloaded(struct exchange *exchange)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_OVERLOADED, "queue \"full\"\n");
    exchange_header(exchange, "X-Reason", "queue");
    exchange_reply_error(exchange, &err);
}

/* Answers every pending exchange, oldest first. */
static inline void answer_pending(void)
{
    size_t count = pending_count;
    pending_count = 0;
    for (size_t i = 0; i < count; i++)
        reply_text(pending[i], 200, "late");
}

static inline void on_next_turn(uv_idle_t *handle)
{
    uv_idle_stop(handle);
    answer_pending();
}

static inline void on_disconnect(struct exchange *exchange)
{
    (void)exchange;
    disconnects++;
}

/* Answers paths that only one test file needs; NULL: all other paths are described. */
static void (*on_other_request)(struct exchange *exchange);

static inline void on_request(struct exchange *exchange, void *context)
{
    ck_assert_ptr_eq(&loop, context);
    requests++;
    bool later = !strcmp(exchange->path, "/later"), turn = !strcmp(exchange->path, "/turn");
    if (later || turn) {
        ck_assert_uint_lt(pending_count, PENDING_MAX);
        exchange->on_disconnect = on_disconnect;
        pending[pending_count++] = exchange;
        if (turn)
            uv_idle_start(&next_turn, on_next_turn);
    } else if (!strcmp(exchange->path, "/echo"))
        reply_echo(exchange);
    else if (!strcmp(exchange->path, "/answer-the-others")) {
        answer_pending();
        reply_description(exchange);
    } else if (!strcmp(exchange->path, "/huge"))
        reply_huge(exchange);
    else if (!strcmp(exchange->path, "/failed"))
        reply_failed(exchange);
    else if (!strcmp(exchange->path, "/overloaded"))
        reply_overloaded(exchange);
    else if (on_other_request)
        on_other_request(exchange);
    else
        reply_description(exchange);
}

static inline void on_finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    ck_assert_ptr_eq(&loop, context);
    ck_assert_uint_lt(duration_ns, (uint64_t)PATIENCE_MS * 1000000);
    finished.count++;
    finished.status = exchange->status;
    finished.body_length = exchange->body_length;
    snprintf(finished.method, sizeof finished.method, "%s", exchange->method_text);
    snprintf(finished.path, sizeof finished.path, "%s", exchange->path);
    snprintf(finished.error, sizeof finished.error, "%s",
             exchange->error_text ? exchange->error_text : "");
}

static inline bool is_vital(const struct exchange *exchange, void *context)
{
    ck_assert_ptr_eq(&loop, context);
    return !strcmp(exchange->path, "/health");
}

static inline void start(void)
{
    struct http_callbacks callbacks = {.context = &loop,
                                       .is_vital = is_vital,
                                       .on_request = on_request,
                                       .on_finished = on_finished};
    struct error err = ERROR_INIT;
    options.limits =
        http_limits_new(max_connections, max_connections_per_ip, max_total_body_bytes, &err);
    http = http_new(&loop, &options, &callbacks, &err);
    ck_assert_msg(http != NULL, "%s", err.text);
}

/* Runs the loop until `condition` holds. */
#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        uint64_t waiting_since = uv_hrtime();                                                      \
        while (!(condition)) {                                                                     \
            ck_assert_msg(uv_hrtime() - waiting_since < (uint64_t)PATIENCE_MS * 1000000,           \
                          "waited too long for " #condition);                                      \
            uv_run(&loop, UV_RUN_NOWAIT);                                                          \
            usleep(100);                                                                           \
        }                                                                                          \
    } while (0)

static inline void wait_ms(unsigned ms)
{
    uint64_t began = uv_hrtime();
    WAIT_FOR(uv_hrtime() - began >= (uint64_t)ms * 1000000);
}

static inline void on_drained(void *context)
{
    ck_assert_ptr_eq(&loop, context);
    drained = true;
    http_close(http);
    http = NULL;
    uv_close((uv_handle_t *)&next_turn, NULL);
}

static inline void setup(void)
{
    options = (struct http_options){.host = "127.0.0.1",
                                    .max_body_bytes = MAX_BODY,
                                    .request_timeout_ms = PATIENCE_MS,
                                    .idle_timeout_ms = PATIENCE_MS};
    ck_assert_int_eq(0, uv_loop_init(&loop));
    uv_idle_init(&loop, &next_turn);
}

/* Every test ends by draining the server and checks that nothing is left. */
static inline void teardown(void)
{
    if (http && !drained)
        http_drain(http, 0, PATIENCE_MS, on_drained, &loop);
    else if (!drained)
        uv_close((uv_handle_t *)&next_turn, NULL);
    WAIT_FOR(!http);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(0, uv_loop_close(&loop));
    http_limits_free(options.limits);
}

/* --- clients --------------------------------------------------------------------------------- */

struct client {
    int fd;
    char in[1 << 18];
    size_t length; /* received and not yet taken by response() */
    bool closed;   /* by the server */
};

/* The last response taken: NUL-terminated header and body. */
static struct {
    int status;
    char header[4096];
    char body[1 << 18];
    size_t body_length;
} response;

static inline struct client *connect_client(void)
{
    struct client *client = calloc(1, sizeof *client);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_port(http)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(0, connect(client->fd, (struct sockaddr *)&address, sizeof address));
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
    return client;
}

static inline void disconnect_client(struct client *client)
{
    close(client->fd);
    free(client);
}

/* Sends everything, running the loop while the socket is full; false if the server does not read
 * it. */
static bool send_bytes(struct client *client, const char *bytes, size_t length)
{
    for (size_t sent = 0; sent < length;) {
        ssize_t count = send(client->fd, bytes + sent, length - sent, MSG_NOSIGNAL);
        if (count > 0)
            sent += (size_t)count;
        else if (errno != EAGAIN)
            return false;
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    return true;
}

static inline void send_text(struct client *client, const char *text)
{
    send_bytes(client, text, strlen(text));
}

/* Reads what has arrived. */
static inline void receive(struct client *client)
{
    ssize_t count;
    while (client->length < sizeof client->in - 1 &&
           (count = recv(client->fd, client->in + client->length,
                         sizeof client->in - 1 - client->length, 0)) >= 0) {
        client->length += (size_t)count;
        client->in[client->length] = '\0';
        if (count == 0) {
            client->closed = true;
            return;
        }
    }
    if (errno != EAGAIN)
        client->closed = true;
}

/* Takes one response from the bytes that have arrived; false if it is not complete yet. */
static bool take_response(struct client *client, bool head_only)
{
    receive(client);
    char *end = strstr(client->in, "\r\n\r\n");
    if (!end)
        return false;
    size_t header_length = (size_t)(end + 4 - client->in);
    snprintf(response.header, sizeof response.header, "%.*s", (int)header_length, client->in);
    const char *length = strstr(response.header, "Content-Length: ");
    size_t body_length = length && !head_only ? strtoul(length + 16, NULL, 10) : 0;
    if (client->length < header_length + body_length)
        return false;
    memcpy(response.body, client->in + header_length, body_length);
    response.body[response.body_length = body_length] = '\0';
    response.status = atoi(response.header + strlen("HTTP/1.1 "));
    client->length -= header_length + body_length;
    memmove(client->in, client->in + header_length + body_length, client->length + 1);
    return true;
}

static inline void expect_status(struct client *client, int status)
{
    WAIT_FOR(take_response(client, false));
    ck_assert_msg(response.status == status, "expected %d: %.1000s%.1000s", status, response.header,
                  response.body);
}

/* A JSON error answer, after which the server closes; nothing else was sent. */
static inline void expect_refusal(struct client *client, int status)
{
    expect_status(client, status);
    ck_assert_ptr_nonnull(strstr(response.header, "Content-Type: application/json\r\n"));
    ck_assert_ptr_nonnull(strstr(response.header, "Connection: close\r\n"));
    ck_assert_msg(!strncmp(response.body, "{\"error\"", 8), "%s", response.body);
    WAIT_FOR((receive(client), client->closed));
    ck_assert_uint_eq(0, client->length);
}

/* A client resets its connection before libmicrohttpd is told to suspend it, so that the exchange
 * outlives the connection. This takes two things: libmicrohttpd must watch the socket, which it
 * does from the second request on, and it must see the error before it asks for the answer, which
 * it does first for its oldest connection. */
static inline void reset_after_hand_over(void (*handler_is_told)(struct exchange *exchange))
{
    struct client *older = connect_client();
    WAIT_FOR(http_connections(http) == 1);
    struct client *client = connect_client();
    struct linger reset = {1, 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    send_text(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect_status(client, 200);
    send_text(client, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    while (pending_count == 0)
        uv_run(&loop, UV_RUN_NOWAIT); /* not one turn more */
    pending[0]->on_disconnect = handler_is_told;
    disconnect_client(client);
    WAIT_FOR(http_connections(http) == 1);
    disconnect_client(older);
}

/* --- running --------------------------------------------------------------------------------- */

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static inline TCase *http_tests_new(void)
{
    TCase *tests = tcase_create("http");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, TEST_SECONDS);
    return tests;
}

/* Runs and frees the tests; returns the exit status. */
static inline int http_tests_run(const char *name, TCase *tests)
{
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif

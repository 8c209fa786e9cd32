/* HTTP against real sockets on loopback. Server and clients share one thread: a client that waits
 * for something turns the loop until it is there, so nothing depends on timing but the timeouts
 * tested. */
#include "../../server/http.h"

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

enum { PATIENCE_MS = 10000, MAX_BODY = 100000, PENDING_MAX = 16 };

static uv_loop_t loop;
static struct http *http;
static bool drained;

/* --- the server under test ------------------------------------------------------------------- */

static struct http_options options;

/* Exchanges whose answer is awaited: /later until the test answers, /turn for one loop turn. */
static struct exchange *pending[PENDING_MAX];
static size_t pending_count;
static uv_idle_t next_turn;

static unsigned requests, disconnects;

/* What on_finished was told, last call. */
static struct {
    unsigned count;
    int status;
    char method[32], path[256], error[512];
} finished;

static void reply_text(struct exchange *exchange, int status, const char *text)
{
    struct buffer body;
    buffer_init(&body, MAX_BODY);
    buffer_text(&body, text);
    exchange_reply(exchange, status, "text/plain", &body);
}

static void reply_description(struct exchange *exchange)
{
    struct buffer body;
    buffer_init(&body, MAX_BODY);
    buffer_format(&body, "%s %s body=%zu encoding=%s inference=%s", exchange->method_text,
                  exchange->path, exchange->body_length,
                  exchange->content_encoding ? exchange->content_encoding : "-",
                  exchange->inference_header_length ? exchange->inference_header_length : "-");
    exchange_reply(exchange, 200, NULL, &body);
}

static void reply_echo(struct exchange *exchange)
{
    struct buffer body;
    buffer_init(&body, MAX_BODY);
    buffer_append(&body, exchange->body, exchange->body_length);
    exchange_reply(exchange, 200, "application/octet-stream", &body);
}

static void reply_huge(struct exchange *exchange)
{
    struct buffer body;
    size_t bytes = 32 << 20;
    buffer_init(&body, bytes);
    memset(buffer_reserve(&body, bytes), 'x', bytes);
    body.length = bytes;
    exchange_reply(exchange, 200, NULL, &body);
}

static void reply_failed(struct exchange *exchange)
{
    struct buffer body;
    buffer_init(&body, 4);
    buffer_text(&body, "more than fits");
    exchange_reply(exchange, 200, "text/plain", &body);
}

static void reply_overloaded(struct exchange *exchange)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_OVERLOADED, "queue \"full\"\n");
    exchange_header(exchange, "X-Reason", "queue");
    exchange_reply_error(exchange, &err);
}

/* Answers every pending exchange, oldest first. */
static void answer_pending(void)
{
    size_t count = pending_count;
    pending_count = 0;
    for (size_t i = 0; i < count; i++)
        reply_text(pending[i], 200, "late");
}

static void on_next_turn(uv_idle_t *handle)
{
    uv_idle_stop(handle);
    answer_pending();
}

static void on_disconnect(struct exchange *exchange)
{
    (void)exchange;
    disconnects++;
}

static void on_request(struct exchange *exchange, void *context)
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
    else
        reply_description(exchange);
}

static void on_finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    ck_assert_ptr_eq(&loop, context);
    ck_assert_uint_lt(duration_ns, (uint64_t)PATIENCE_MS * 1000000);
    finished.count++;
    finished.status = exchange->status;
    snprintf(finished.method, sizeof finished.method, "%s", exchange->method_text);
    snprintf(finished.path, sizeof finished.path, "%s", exchange->path);
    snprintf(finished.error, sizeof finished.error, "%s",
             exchange->error_text ? exchange->error_text : "");
}

static void start(void)
{
    struct http_callbacks callbacks = {&loop, on_request, on_finished};
    struct error err = ERROR_INIT;
    http = http_new(&loop, &options, &callbacks, &err);
    ck_assert_msg(http != NULL, "%s", err.text);
}

/* Turns the loop until `condition` holds. */
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

static void wait_ms(unsigned ms)
{
    uint64_t began = uv_hrtime();
    WAIT_FOR(uv_hrtime() - began >= (uint64_t)ms * 1000000);
}

static void on_drained(void *context)
{
    ck_assert_ptr_eq(&loop, context);
    drained = true;
    http_close(http);
    http = NULL;
    uv_close((uv_handle_t *)&next_turn, NULL);
}

static void setup(void)
{
    options = (struct http_options){.host = "127.0.0.1",
                                    .max_connections = 20,
                                    .max_body_bytes = MAX_BODY,
                                    .request_timeout_ms = PATIENCE_MS,
                                    .idle_timeout_ms = PATIENCE_MS};
    ck_assert_int_eq(0, uv_loop_init(&loop));
    uv_idle_init(&loop, &next_turn);
}

/* Every test ends by draining, and proves that nothing is left. */
static void teardown(void)
{
    if (http && !drained)
        http_drain(http, 0, on_drained, &loop);
    else if (!drained)
        uv_close((uv_handle_t *)&next_turn, NULL);
    WAIT_FOR(!http);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(0, uv_loop_close(&loop));
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

static struct client *connect_client(void)
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

static void disconnect_client(struct client *client)
{
    close(client->fd);
    free(client);
}

/* Sends all, turning the loop where the socket is full; false if the server does not take it. */
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

static void send_text(struct client *client, const char *text)
{
    send_bytes(client, text, strlen(text));
}

/* Takes what has arrived. */
static void receive(struct client *client)
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

/* Takes one response off what has arrived; false if it is not whole yet. */
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

static void expect_status(struct client *client, int status)
{
    WAIT_FOR(take_response(client, false));
    ck_assert_msg(response.status == status, "expected %d: %.1000s%.1000s", status, response.header,
                  response.body);
}

/* A JSON error answer, after which the server closes; nothing else was sent. */
static void expect_refusal(struct client *client, int status)
{
    expect_status(client, status);
    ck_assert_ptr_nonnull(strstr(response.header, "Content-Type: application/json\r\n"));
    ck_assert_ptr_nonnull(strstr(response.header, "Connection: close\r\n"));
    ck_assert_msg(!strncmp(response.body, "{\"error\"", 8), "%s", response.body);
    WAIT_FOR((receive(client), client->closed));
    ck_assert_uint_eq(0, client->length);
}

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
        wait_ms((unsigned)i * 150); /* not suspended for long; long enough to be watched; longer */
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

/* Work that no descriptor announces must not wait for the next tick. */
START_TEST(the_loop_does_not_sleep_on_pipelined_requests)
{
    enum { REQUESTS = 200 };
    uint64_t began = uv_hrtime();
    start();
    struct client *client = connect_client();
    for (int i = 0; i < REQUESTS; i++)
        send(client->fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, 0);
    while (finished.count < REQUESTS)
        uv_run(&loop, UV_RUN_ONCE);
    ck_assert_uint_lt(uv_hrtime() - began, (uint64_t)2000 * 1000000);
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

/* Batching does this: the request that fills a batch has the answers of the others with it. */
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
    expect_status(client, 200); /* nothing of the HEAD's body was in between */
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
    ck_assert_str_eq("{\"error\": \"queue \\\"full\\\"\\n\"}", response.body);
    ck_assert_ptr_nonnull(strstr(response.header, "Retry-After: 1\r\n"));
    ck_assert_ptr_nonnull(strstr(response.header, "X-Reason: queue\r\n"));
    WAIT_FOR(finished.count == 1);
    ck_assert_str_eq("queue \"full\"\n", finished.error);
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

/* A client that sends all of its body before it reads must be let to, and get an answer, not a
 * reset (Python's http.client is one). */
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

/* --- what is refused ------------------------------------------------------------------------- */

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
    {501, "POST / HTTP/1.1\r\n" HOST
          "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"},
    {400, "GET /a HTTP/1.1 /b HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a?b c HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a\tb HTTP/1.1\r\n" HOST "\r\n"},
    /* libmicrohttpd's own refusals */
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

START_TEST(a_dripping_request_line_is_closed)
{
    options.idle_timeout_ms = 150;
    start();
    struct client *client = connect_client();
    send_text(client, "GET /");
    drip(client, "a");
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
}
END_TEST

START_TEST(a_dripping_header_is_refused)
{
    options.idle_timeout_ms = 150;
    start();
    struct client *client = connect_client();
    send_text(client, "GET / HTTP/1.1\r\nX: ");
    drip(client, "a");
    expect_refusal(client, 408);
    ck_assert_int_eq(408, finished.status);
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
    ck_assert_uint_eq(0, requests);
    disconnect_client(client);
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
    ck_assert_int_eq(200, finished.status);
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

/* A client that resets its connection before libmicrohttpd is told to leave it alone: the exchange
 * outlives the connection. To get there, libmicrohttpd must be watching the socket, which it does
 * from the second request on, and must see the error before it asks for the answer, which it does
 * first for its oldest connection. */
static void reset_after_hand_over(void (*handler_is_told)(struct exchange *exchange))
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

START_TEST(a_waiting_client_is_accepted_when_a_slot_frees)
{
    options.max_connections = 2;
    start();
    struct client *first = connect_client(), *second = connect_client();
    WAIT_FOR(http_connections(http) == 2);
    struct client *third = connect_client();
    send_text(third, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_ms(30);
    receive(third);
    ck_assert_uint_eq(0, third->length);
    ck_assert(!third->closed);
    disconnect_client(first);
    for (int turn = 0; turn < 20; turn++)
        uv_run(&loop, UV_RUN_NOWAIT); /* by readiness, not by the next tick */
    ck_assert_uint_eq(1, requests);
    expect_status(third, 200);
    disconnect_client(second);
    disconnect_client(third);
}
END_TEST

START_TEST(one_address_cannot_take_all_connections)
{
    options.max_connections_per_ip = 2;
    start();
    struct client *first = connect_client(), *second = connect_client();
    WAIT_FOR(http_connections(http) == 2);
    struct client *third = connect_client();
    WAIT_FOR((receive(third), third->closed));
    disconnect_client(first);
    disconnect_client(second);
    disconnect_client(third);
}
END_TEST

/* --- draining -------------------------------------------------------------------------------- */

START_TEST(draining_finishes_accepted_work)
{
    start();
    struct client *busy = connect_client(), *uploading = connect_client(), *idle = connect_client();
    send_text(busy, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(uploading, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    WAIT_FOR(pending_count == 1 && http_connections(http) == 3);
    struct client *backlog = connect_client(); /* accepted by the kernel, not yet by us */
    uint16_t port = http_port(http);
    http_drain(http, 50, on_drained, &loop);
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
    options.max_connections = 2;
    start();
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_client();
        send(clients[i]->fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, 0);
    }
    http_drain(http, PATIENCE_MS, on_drained, &loop);
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
    http_drain(http, 0, on_drained, &loop);
    WAIT_FOR(http_connections(http) == 0);
    wait_ms(50);
    ck_assert(!drained);
    answer_pending();
    WAIT_FOR(drained);
}
END_TEST

START_TEST(an_idle_server_drains_at_once_and_only_later_in_the_loop)
{
    start();
    http_drain(http, PATIENCE_MS, on_drained, &loop);
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
    struct http_callbacks callbacks = {&loop, on_request, on_finished};
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
    options.max_connections = 2000000000;
    expect_start_error("raise that limit or lower max_connections");
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

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

int main(void)
{
    TCase *tests = tcase_create("http");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, an_answer_at_once);
    tcase_add_test(tests, header_fields_are_handed_on);
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
    tcase_add_loop_test(tests, a_request_is_refused, 0, COUNT(refused));
    tcase_add_test(tests, a_nul_in_the_header_is_refused);
    tcase_add_loop_test(tests, a_header_too_large_is_refused, 0, 3);
    tcase_add_test(tests, a_header_of_24_kb_is_accepted);
    tcase_add_test(tests, an_idle_connection_is_closed);
    tcase_add_test(tests, a_dripping_request_line_is_closed);
    tcase_add_test(tests, a_dripping_header_is_refused);
    tcase_add_loop_test(tests, a_slow_body_is_refused, 0, 2);
    tcase_add_test(tests, a_client_that_does_not_read_is_closed);
    tcase_add_test(tests, a_client_gone_before_its_request_is_whole_is_reported);
    tcase_add_loop_test(tests, a_client_gone_while_its_answer_is_awaited_is_noticed, 0, 2);
    tcase_add_test(tests, an_exchange_may_outlive_its_connection);
    tcase_add_test(tests, the_handler_may_answer_when_told_of_a_disconnect);
    tcase_add_test(tests, a_waiting_client_is_accepted_when_a_slot_frees);
    tcase_add_test(tests, one_address_cannot_take_all_connections);
    tcase_add_test(tests, draining_finishes_accepted_work);
    tcase_add_test(tests, draining_serves_the_backlog_beyond_the_connection_limit);
    tcase_add_test(tests, draining_waits_for_the_answer_to_a_client_that_is_gone);
    tcase_add_test(tests, an_idle_server_drains_at_once_and_only_later_in_the_loop);
    tcase_add_test(tests, closing_without_draining);
    tcase_add_test(tests, what_cannot_be_listened_on_is_said);
    tcase_add_test(tests, ipv6);
    Suite *suite = suite_create("http");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

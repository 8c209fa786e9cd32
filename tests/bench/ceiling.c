/* Measures the most requests that server/http/http*.c can serve: reads every request whole and
 * answers with a constant as long as a prediction. The server adds decoding, batching, the model
 * and encoding.
 *
 *   ceiling REPLY_BYTES [LOOPS]
 *
 * Prints "listening on http://127.0.0.1:PORT" to standard error; LOOPS is what --loops is to the
 * server. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/http.h"
#include "server/http/http_limits.h"

enum { MAX_LOOPS = 64, MAX_CONNECTIONS = 1024, MAX_BODY_BYTES = 64 << 20 };

static void answer(struct exchange *exchange, void *context)
{
    const size_t *reply_bytes = context;
    struct buffer body;
    buffer_init(&body, *reply_bytes);
    char *bytes = buffer_reserve(&body, *reply_bytes);
    if (bytes) {
        memset(bytes, '1', *reply_bytes);
        body.length = *reply_bytes;
    }
    exchange_reply(exchange, 200, NULL, &body);
}

static bool is_vital(const struct exchange *exchange, void *context)
{
    (void)exchange;
    (void)context;
    return false;
}

static void finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    (void)exchange;
    (void)duration_ns;
    (void)context;
}

/* Port 0 means any port, for the first loop of several. */
static struct http *listen_on(uv_loop_t *loop, uint16_t port, struct http_limits *limits,
                              size_t *reply_bytes)
{
    const struct http_options options = {.host = "127.0.0.1",
                                         .port = port,
                                         .listening = port ? HTTP_LISTEN_JOIN : HTTP_LISTEN_FIRST,
                                         .limits = limits,
                                         .max_body_bytes = MAX_BODY_BYTES,
                                         .request_timeout_ms = 30000,
                                         .idle_timeout_ms = 60000};
    const struct http_callbacks callbacks = {.context = reply_bytes,
                                             .is_vital = is_vital,
                                             .on_request = answer,
                                             .on_finished = finished};
    struct error err = ERROR_INIT;
    struct http *http = http_new(loop, &options, &callbacks, &err);
    if (!http) {
        fprintf(stderr, "ceiling: %s\n", err.text);
        exit(EXIT_FAILURE);
    }
    return http;
}

static void run_loop(void *loop)
{
    uv_run(loop, UV_RUN_DEFAULT); /* until it is killed */
}

int main(int argc, char *argv[])
{
    static uv_loop_t loops[MAX_LOOPS];
    static uv_thread_t threads[MAX_LOOPS];
    size_t reply_bytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    const unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    if (argc < 2 || argc > 3 || count < 1 || count > MAX_LOOPS) {
        fputs("usage: ceiling REPLY_BYTES [LOOPS]\n", stderr);
        return EXIT_FAILURE;
    }
    struct error err = ERROR_INIT;
    struct http_limits *limits = http_limits_new(MAX_CONNECTIONS, MAX_CONNECTIONS,
                                                 (size_t)MAX_CONNECTIONS * MAX_BODY_BYTES, &err);
    if (!limits) {
        fprintf(stderr, "ceiling: %s\n", err.text);
        return EXIT_FAILURE;
    }
    uint16_t port = 0;
    for (size_t i = 0; i < count; i++) {
        uv_loop_init(&loops[i]);
        port = http_port(listen_on(&loops[i], port, limits, &reply_bytes));
    }
    fprintf(stderr, "listening on http://127.0.0.1:%u\n", (unsigned)port);
    for (size_t i = 1; i < count; i++)
        uv_thread_create(&threads[i], run_loop, &loops[i]);
    run_loop(&loops[0]);
    return EXIT_SUCCESS;
}

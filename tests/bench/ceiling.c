/* The most requests that server/http.c can carry: it reads every request whole and answers with a
 * constant of the length a prediction has. What lies between this and the server is decoding, batching,
 * the model and encoding.
 *
 *   ceiling REPLY_BYTES       prints "listening on http://127.0.0.1:PORT" to standard error */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http.h"

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

static void finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    (void)exchange;
    (void)duration_ns;
    (void)context;
}

int main(int argc, char *argv[])
{
    if (argc != 2) {
        fputs("usage: ceiling REPLY_BYTES\n", stderr);
        return EXIT_FAILURE;
    }
    size_t reply_bytes = strtoul(argv[1], NULL, 10);
    const struct http_options options = {.host = "127.0.0.1",
                                         .max_connections = 1024,
                                         .max_body_bytes = 64 << 20,
                                         .request_timeout_ms = 30000,
                                         .idle_timeout_ms = 60000};
    const struct http_callbacks callbacks = {&reply_bytes, answer, finished};
    struct error err = ERROR_INIT;
    struct http *http = http_new(uv_default_loop(), &options, &callbacks, &err);
    if (!http) {
        fprintf(stderr, "ceiling: %s\n", err.text);
        return EXIT_FAILURE;
    }
    fprintf(stderr, "listening on http://127.0.0.1:%u\n", (unsigned)http_port(http));
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT); /* until it is killed */
}

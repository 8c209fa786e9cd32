/* Start, serve, drain; see server.h.
 *
 * Stopping takes these steps, so that nothing accepted is lost:
 *   1. a signal: readiness fails; requests are still served for drain_delay_ms, while load
 *      balancers notice;
 *   2. http_drain(): the backlog is accepted, the listening socket closed, every answer closes its
 *      connection, idle connections are closed after a grace;
 *   3. the last connection is gone: handles are closed, the loop runs out, exit 0.
 * drain_timeout_ms bounds steps 2 and 3; a second signal ends the process at once. */
#include "server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "log.h"
#include "routes.h"

/* How long a kept-alive connection may stay silent once draining: a client that was about to send
 * its next request has sent it by then. */
enum { DRAIN_GRACE_MS = 250 };

/* The largest answer; bounds what one request can make the server hold. */
static const size_t MAX_RESPONSE_BYTES = (size_t)256 << 20;

static void on_request(struct exchange *exchange, void *context)
{
    routes_dispatch(context, exchange);
}

static void log_exchange(const struct exchange *exchange, uint64_t duration_ns)
{
    struct log_line line;
    if (!log_enabled(LOG_INFO))
        return;
    log_begin(&line, LOG_INFO, "request");
    log_text(&line, "method", exchange->method_text);
    log_text(&line, "path", exchange->path);
    log_number(&line, "status", (uint64_t)exchange->status);
    log_milliseconds(&line, "ms", duration_ns);
    log_number(&line, "in", exchange->body_length);
    log_number(&line, "out", exchange->reply_length);
    if (exchange->log_model) {
        log_text(&line, "model", exchange->log_model);
        log_text(&line, "version", exchange->log_version);
    }
    if (exchange->log_rows)
        log_number(&line, "rows", exchange->log_rows);
    if (exchange->error_text)
        log_text(&line, "error", exchange->error_text);
    log_end(&line);
}

/* Inference requests count at their model; other requests only when they failed. */
static void count_exchange(struct server *server, const struct exchange *exchange,
                           uint64_t duration_ns)
{
    const char *protocol = exchange->log_protocol ? exchange->log_protocol : "";
    struct served *served = NULL;
    if (exchange->log_protocol && exchange->log_model)
        served = registry_find(&server->registry, exchange->log_model, exchange->log_version, NULL);
    if (served) {
        request_counts_add(&served->stats.requests, protocol, exchange->status);
        histogram_observe(&served->stats.request_seconds, (double)duration_ns / 1e9);
    } else if (exchange->log_protocol || exchange->status >= 400) {
        request_counts_add(&server->other_requests, protocol, exchange->status);
    }
}

static void on_finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    count_exchange(context, exchange, duration_ns);
    log_exchange(exchange, duration_ns);
}

static void close_parts(struct server *server)
{
    http_close(server->http);
    predict_close(&server->predict);
    scheduler_close(&server->scheduler);
    uv_close((uv_handle_t *)&server->terminate, NULL);
    uv_close((uv_handle_t *)&server->interrupt, NULL);
    uv_close((uv_handle_t *)&server->drain, NULL);
}

static void on_drained(void *context)
{
    struct server *server = context;
    log_message(LOG_INFO, "drained", "every accepted request was answered");
    uv_stop(&server->loop);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct server *server = timer->data;
    log_message(LOG_ERROR, "drain_timeout", "%u connections did not finish within %llu ms",
                http_connections(server->http),
                (unsigned long long)server->options->drain_timeout_ms);
    _exit(1);
}

static void start_drain(uv_timer_t *timer)
{
    struct server *server = timer->data;
    log_message(LOG_INFO, "draining", "no new connections; %u open",
                http_connections(server->http));
    uv_timer_start(timer, on_drain_timeout, server->options->drain_timeout_ms, 0);
    http_drain(server->http, DRAIN_GRACE_MS, on_drained, server);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    if (server->stopping)
        _exit(128 + number);
    server->stopping = true;
    log_message(LOG_INFO, "stopping", "%s: not ready any more, serving for another %llu ms",
                number == SIGTERM ? "SIGTERM" : "SIGINT",
                (unsigned long long)server->options->drain_delay_ms);
    uv_timer_start(&server->drain, start_drain, server->options->drain_delay_ms, 0);
}

static unsigned compute_threads(const struct options *options)
{
    return options->threads ? (unsigned)options->threads : cpu_count("");
}

static int start_http(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    const struct http_options http = {
        .host = options->host,
        .port = (uint16_t)options->port,
        .max_connections = (unsigned)options->max_connections,
        .max_connections_per_ip = (unsigned)options->max_connections_per_ip,
        .max_body_bytes = options->max_body_bytes,
        .request_timeout_ms = (unsigned)options->request_timeout_ms,
        .idle_timeout_ms = (unsigned)options->idle_timeout_ms,
    };
    const struct http_callbacks callbacks = {server, on_request, on_finished};
    server->http = http_new(&server->loop, &http, &callbacks, err);
    return server->http ? 0 : -1;
}

static void start_signals(struct server *server)
{
    uv_signal_init(&server->loop, &server->terminate);
    uv_signal_init(&server->loop, &server->interrupt);
    uv_timer_init(&server->loop, &server->drain);
    server->terminate.data = server->interrupt.data = server->drain.data = server;
    uv_signal_start(&server->terminate, on_signal, SIGTERM);
    uv_signal_start(&server->interrupt, on_signal, SIGINT);
}

static int load_models(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    const struct served_options served = {.max_batch_rows = options->max_batch_rows,
                                          .max_queue_rows = options->max_queue_rows,
                                          .threads = compute_threads(options)};
    return registry_init(&server->registry, options->models, &served, err);
}

/* What no single option's range can say. */
static int check_options(const struct options *options, struct error *err)
{
    if (options->max_request_rows > options->max_queue_rows)
        return error_set(err, ERROR_INVALID,
                         "max_request_rows (%llu) exceeds max_queue_rows (%llu): such a request "
                         "could never be queued",
                         (unsigned long long)options->max_request_rows,
                         (unsigned long long)options->max_queue_rows);
    return 0;
}

static int start(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    const struct infer_limits limits = {.max_rows = options->max_request_rows,
                                        .max_response_bytes = MAX_RESPONSE_BYTES};
    if (check_options(options, err) != 0 || load_models(server, err) != 0)
        return -1;
    if (scheduler_init(&server->scheduler, &server->loop, &server->registry,
                       compute_threads(options), options->max_queue_delay_us, predict_finished,
                       err) != 0)
        goto fail_scheduler;
    predict_init(&server->predict, &server->loop, &server->scheduler, &limits,
                 options->queue_timeout_ms);
    if (start_http(server, err) != 0)
        goto fail_http;
    start_signals(server);
    log_message(LOG_INFO, "ready", "%u compute threads, %s kernel", compute_threads(options),
                moed_kernel_name());
    return 0;

fail_http:
    predict_close(&server->predict);
    scheduler_close(&server->scheduler);
fail_scheduler:
    return -1;
}

/* The one line that scripts wait for; stable, and written whatever the log level. */
static void announce(const struct server *server)
{
    const bool ipv6 = strchr(server->options->host, ':') != NULL;
    fprintf(stderr, "listening on http://%s%s%s:%u\n", ipv6 ? "[" : "", server->options->host,
            ipv6 ? "]" : "", http_port(server->http));
    fflush(stderr);
}

int server_run(const struct options *options, struct error *err)
{
    struct server *server = xcalloc(1, sizeof *server);
    server->options = options;
    uv_loop_init(&server->loop);
    signal(SIGPIPE, SIG_IGN);
    int result = start(server, err);
    if (result == 0) {
        announce(server);
        uv_run(&server->loop, UV_RUN_DEFAULT);
        close_parts(server);
    }
    uv_run(&server->loop, UV_RUN_DEFAULT);
    uv_loop_close(&server->loop);
    registry_close(&server->registry);
    request_counts_close(&server->other_requests);
    free(server);
    return result;
}

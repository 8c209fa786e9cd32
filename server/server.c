/* Start, serve, drain; see server.h.
 *
 * Stopping takes these steps, so that nothing accepted is lost:
 *   1. a signal, to the first loop: readiness fails; requests are still served for drain_delay_ms,
 *      while load balancers notice;
 *   2. http_drain() in every loop: the backlog is accepted, the listening socket closed, every
 *      answer closes its connection, idle connections are closed after a grace;
 *   3. a loop's last connection is gone: its thread ends, the first loop's when all are; exit 0.
 * drain_timeout_ms bounds steps 2 and 3; a second signal ends the process at once. */
#include "server/server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/cpu.h"
#include "server/http_listen.h"
#include "server/log.h"
#include "server/routes.h"

/* How long a kept-alive connection may stay silent once draining: a client that was about to send
 * its next request has sent it by then. */
enum { DRAIN_GRACE_MS = 250 };

/* How long the end of the process waits for whoever reads the log; the second, when it was told to
 * end at once. */
enum { LOG_PATIENCE_MS = 1000, LOG_IMPATIENCE_MS = 100 };

/* The largest answer; bounds what one request can make the server hold. */
static const size_t MAX_RESPONSE_BYTES = (size_t)256 << 20;

static bool is_vital(const struct exchange *exchange, void *context)
{
    (void)context;
    return routes_is_vital(exchange->path);
}

static void on_request(struct exchange *exchange, void *context)
{
    struct server *server = context;
    routes_dispatch(&server->api, exchange);
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
        stats_add_request(&served->stats, protocol, exchange->status, (double)duration_ns / 1e9);
    } else if (exchange->log_protocol || exchange->status >= 400) {
        uv_mutex_lock(&server->mutex);
        request_counts_add(&server->other_requests, protocol, exchange->status, 1);
        uv_mutex_unlock(&server->mutex);
    }
}

static unsigned open_connections(const struct process *process)
{
    unsigned count = 0;
    for (size_t i = 0; i < process->count; i++)
        count += http_connections(process->servers[i].http);
    return count;
}

static void on_finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    count_exchange(context, exchange, duration_ns);
    log_exchange(exchange, duration_ns);
}

/* The loop's own handles go with the loop, see free_server(). */
static void close_parts(struct server *server)
{
    http_close(server->http);
    predict_close(&server->predict);
    scheduler_close(&server->scheduler);
}

/* A loop's drain has ended, well or not. The last one decides about the process, so that what the
 * others still finish is not cut. */
static void count_drained(struct process *process)
{
    if (atomic_fetch_sub(&process->serving, 1) != 1)
        return;
    if (atomic_load(&process->lost)) {
        log_stop(LOG_PATIENCE_MS);
        _exit(1);
    }
    uv_async_send(&process->servers->all_drained);
}

/* The first loop stays for the others: a second signal must still find it. */
static void on_drained(void *context)
{
    struct server *server = context;
    uv_timer_stop(&server->drain_limit);
    if (server != server->process->servers)
        uv_stop(&server->loop);
    count_drained(server->process);
}

static void on_all_drained(uv_async_t *all_drained)
{
    uv_stop(all_drained->loop);
}

static void log_lost(const struct exchange *exchange, void *context)
{
    struct log_line line;
    (void)context;
    log_begin(&line, LOG_ERROR, "request_lost");
    log_text(&line, "method", exchange->method_text);
    log_text(&line, "path", exchange->path);
    log_milliseconds(&line, "ms", uv_hrtime() - exchange->received_ns);
    if (exchange->log_rows)
        log_number(&line, "rows", exchange->log_rows);
    log_end(&line);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct server *server = timer->data;
    size_t lost = http_drain_end(server->http, log_lost, server);
    if (lost == 0)
        return;
    log_message(LOG_ERROR, "drain_timeout", "%zu requests were not answered within %llu ms", lost,
                (unsigned long long)server->options->drain_timeout_ms);
    atomic_store(&server->process->lost, true);
    count_drained(server->process);
}

static void on_drain_asked(uv_async_t *asked)
{
    struct server *server = asked->data;
    uv_timer_start(&server->drain_limit, on_drain_timeout, server->options->drain_timeout_ms, 0);
    http_drain(server->http, DRAIN_GRACE_MS, (unsigned)server->options->drain_timeout_ms,
               on_drained, server);
}

static void ask_for_drain(uv_timer_t *timer)
{
    struct server *server = timer->data;
    struct process *process = server->process;
    log_message(LOG_INFO, "draining", "no new connections; %u open", open_connections(process));
    for (size_t i = 0; i < process->count; i++)
        uv_async_send(&process->servers[i].drain_asked);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    if (atomic_exchange(&server->process->stopping, true)) {
        log_stop(LOG_IMPATIENCE_MS);
        _exit(128 + number);
    }
    log_message(LOG_INFO, "stopping", "%s: not ready any more, serving for another %llu ms",
                number == SIGTERM  ? "SIGTERM"
                : number == SIGINT ? "SIGINT"
                                   : "SIGQUIT",
                (unsigned long long)server->options->drain_delay_ms);
    uv_timer_start(&server->drain_delay, ask_for_drain, server->options->drain_delay_ms, 0);
}

static void on_hang_up(uv_signal_t *handle, int number)
{
    (void)handle, (void)number;
    log_message(LOG_WARNING, "ignored", "SIGHUP: models and options are read at the start only");
}

/* Signals whose default would end the process with requests in flight. Who sends them means another
 * program, or a log file that may grow no further (SIGXFSZ): writing fails, serving goes on. */
static void ignore_signals(void)
{
    static const int IGNORED[] = {SIGPIPE, SIGHUP,  SIGUSR1,   SIGUSR2, SIGALRM,
                                  SIGIO,   SIGPROF, SIGVTALRM, SIGXFSZ};
    for (size_t i = 0; i < sizeof IGNORED / sizeof *IGNORED; i++)
        signal(IGNORED[i], SIG_IGN);
}

/* What of `whole` each loop gets: all of it when there is one, and at least `least`. */
static uint64_t share_of(uint64_t whole, const struct options *options, uint64_t least)
{
    const uint64_t share = (whole + options->loops - 1) / options->loops;
    return share > least ? share : least;
}

static unsigned compute_threads(const struct options *options)
{
    const uint64_t threads = options->threads ? options->threads : cpu_count("");
    return (unsigned)share_of(threads, options, 1);
}

/* The first loop binds the port, the others join it there. */
static int start_http(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    const struct server *first = server->process->servers;
    const struct http_options http = {
        .host = options->host,
        .port = server == first ? (uint16_t)options->port : http_port(first->http),
        .listening = options->loops == 1 ? HTTP_LISTEN_ALONE
                     : server == first   ? HTTP_LISTEN_FIRST
                                         : HTTP_LISTEN_JOIN,
        .limits = server->process->limits,
        .max_connections_per_ip = (unsigned)share_of(options->max_connections_per_ip, options, 0),
        .max_body_bytes = options->max_body_bytes,
        .request_timeout_ms = (unsigned)options->request_timeout_ms,
        .idle_timeout_ms = (unsigned)options->idle_timeout_ms,
    };
    const struct http_callbacks callbacks = {server, is_vital, on_request, on_finished};
    server->http = http_new(&server->loop, &http, &callbacks, err);
    return server->http ? 0 : -1;
}

static int start_signals(struct server *server, struct error *err)
{
    const struct {
        uv_signal_t *handle;
        uv_signal_cb callback;
        int number;
    } signals[] = {{&server->terminate, on_signal, SIGTERM},
                   {&server->interrupt, on_signal, SIGINT},
                   {&server->quit, on_signal, SIGQUIT},
                   {&server->hang_up, on_hang_up, SIGHUP}};
    int status = uv_timer_init(&server->loop, &server->drain_delay);
    server->drain_delay.data = server;
    if (status == 0)
        status = uv_async_init(&server->loop, &server->all_drained, on_all_drained);
    for (size_t i = 0; i < sizeof signals / sizeof *signals && status == 0; i++) {
        signals[i].handle->data = server;
        uv_signal_init(&server->loop, signals[i].handle);
        status = uv_signal_start(signals[i].handle, signals[i].callback, signals[i].number);
    }
    return status == 0
               ? 0
               : error_set(err, ERROR_INTERNAL, "cannot wait for signals: %s", uv_strerror(status));
}

/* Each of these takes descriptors, of which there may be none left. */
static int open_loop(struct server *server, struct error *err)
{
    int status = uv_loop_init(&server->loop);
    if (status == 0) {
        server->loop.data = server; /* there is something to close */
        uv_timer_init(&server->loop, &server->drain_limit);
        server->drain_asked.data = server->drain_limit.data = server;
        status = uv_async_init(&server->loop, &server->drain_asked, on_drain_asked);
    }
    if (status == 0)
        return 0;
    return error_set(err, ERROR_INTERNAL, "cannot start an event loop: %s", uv_strerror(status));
}

static int load_models(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    const struct server *first = server->process->servers;
    const struct served_options served = {
        .max_batch_rows = options->max_batch_rows,
        /* the largest request must fit in one loop's queue */
        .max_queue_rows = share_of(options->max_queue_rows, options, options->max_request_rows),
        .threads = compute_threads(options),
        .int8 = strcmp(options->weights, "int8") == 0};
    return server == first ? registry_init(&server->registry, options->models, &served, err)
                           : registry_share(&server->registry, &first->registry, &served, err);
}

static int start_scheduler(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    return scheduler_init(&server->scheduler, &server->loop, &server->registry,
                          compute_threads(options), options->max_queue_delay_us, predict_finished,
                          err);
}

/* On error nothing is left running, but what free_server() takes. */
static int start(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    const struct infer_limits limits = {.max_rows = options->max_request_rows,
                                        .max_response_bytes = MAX_RESPONSE_BYTES};
    if (uv_mutex_init(&server->mutex) != 0)
        out_of_memory();
    if (open_loop(server, err) != 0 || load_models(server, err) != 0 ||
        start_scheduler(server, err) != 0)
        return -1;
    predict_init(&server->predict, &server->loop, &server->scheduler, &limits,
                 options->queue_timeout_ms);
    server->api = (struct api){.options = options,
                               .registry = &server->registry,
                               .predict = &server->predict,
                               .stopping = &server->process->stopping,
                               .server = server};
    if (start_http(server, err) == 0) {
        if (server != server->process->servers || start_signals(server, err) == 0)
            return 0;
        http_close(server->http);
    }
    predict_close(&server->predict);
    scheduler_close(&server->scheduler);
    return -1;
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void free_server(struct server *server)
{
    if (server->loop.data) {
        uv_walk(&server->loop, close_handle, NULL);
        uv_run(&server->loop, UV_RUN_DEFAULT); /* runs the closed handles out */
        uv_loop_close(&server->loop);
    }
    registry_close(&server->registry);
    request_counts_close(&server->other_requests);
    uv_mutex_destroy(&server->mutex);
}

/* Serves until drained. */
static void run_loop(void *argument)
{
    struct server *server = argument;
    uv_run(&server->loop, UV_RUN_DEFAULT);
    close_parts(server);
}

/* The one line that scripts wait for; stable, and written whatever the log level. */
static void announce(const struct server *server)
{
    char line[512];
    const bool ipv6 = strchr(server->options->host, ':') != NULL;
    snprintf(line, sizeof line, "listening on http://%s%.400s%s:%u\n", ipv6 ? "[" : "",
             server->options->host, ipv6 ? "]" : "", http_port(server->http));
    log_plain(line);
}

static void run_process(struct process *process)
{
    process->serving = process->count;
    announce(&process->servers[0]);
    for (size_t i = 1; i < process->count; i++)
        if (uv_thread_create(&process->servers[i].thread, run_loop, &process->servers[i]) != 0) {
            /* the port is shared already: half a server must not stay */
            log_message(LOG_ERROR, "fatal", "cannot start the thread of event loop %zu", i);
            log_stop(LOG_PATIENCE_MS);
            _exit(1);
        }
    run_loop(&process->servers[0]);
    for (size_t i = 1; i < process->count; i++)
        uv_thread_join(&process->servers[i].thread);
    log_message(LOG_INFO, "drained", "every accepted request was answered");
}

static int limit_connections(struct process *process, struct error *err)
{
    const struct options *options = process->options;
    unsigned max_connections;
    if (http_limit_connections(options->max_connections, options->loops, &max_connections, err) !=
        0)
        return -1;
    if (!options->max_connections && max_connections < HTTP_DEFAULT_CONNECTIONS)
        log_message(LOG_WARNING, "few_files",
                    "at most %u connections instead of %d: the limit of open files (ulimit -Hn) "
                    "allows no more",
                    max_connections, HTTP_DEFAULT_CONNECTIONS);
    process->limits = http_limits_new(max_connections, options->max_total_body_bytes, err);
    return process->limits ? 0 : -1;
}

int server_run(const struct options *options, struct error *err)
{
    struct process process = {.options = options,
                              .servers = xcalloc(options->loops, sizeof *process.servers)};
    ignore_signals();
    uv_replace_allocator(xmalloc, xrealloc, xcalloc, free); /* libuv would abort without a word */
    int result = log_start(err);
    if (result == 0)
        result = limit_connections(&process, err);
    size_t begun = 0;
    while (result == 0 && begun < options->loops) {
        struct server *server = &process.servers[begun++];
        server->process = &process;
        server->options = options;
        result = start(server, err);
        process.count += result == 0;
    }
    if (result == 0) {
        log_message(LOG_INFO, "ready", "%zu loops of %u compute threads, %s kernel", process.count,
                    compute_threads(options), moed_kernel_name());
        run_process(&process);
    } else {
        for (size_t i = 0; i < process.count; i++)
            close_parts(&process.servers[i]);
    }
    while (begun > 0) /* the first owns the models */
        free_server(&process.servers[--begun]);
    free(process.servers);
    http_limits_free(process.limits);
    log_stop(LOG_PATIENCE_MS);
    return result;
}

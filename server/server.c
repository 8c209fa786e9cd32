/* Start, serve, drain.
 *
 * The port is bound first, so that a wrong address is told before a large model is read, and
 * probes find a server that lives and is not ready yet.
 *
 * Stopping takes these steps, so that nothing accepted is lost:
 *   1. a signal, to the first loop: readiness fails; requests are still served for drain_delay_ms,
 *      while load balancers notice;
 *   2. http_drain() in every loop: the backlog is accepted, the listening socket closed, every
 *      answer closes its connection, idle connections are closed after a grace;
 *   3. a loop's last connection is gone: its thread ends, the first loop's when all are; exit 0.
 * drain_timeout_ms bounds steps 2 and 3; a second signal ends the process at once, unless it comes
 * with the first, as timeout(1) sends it. */
#include "server/server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/access/credentials.h"
#include "server/access/sandbox.h"
#include "server/http/http_listen.h"
#include "server/http/listen_address.h"
#include "server/log.h"
#include "server/terminal.h"

/* How long the end of the process waits for whoever reads the log; the same if it was told to end
 * at once; and how far apart signals are that say the same. */
enum { LOG_PATIENCE_MS = 1000, LOG_IMPATIENCE_MS = 100, ONE_SIGNAL_MS = 200 };

/* ---- draining ---- */

/* The last loop decides about the process, so that what the others still finish is not cut. */
static void on_drained(void *context, bool all_answered)
{
    struct server *server = context;
    if (!all_answered)
        atomic_store(&server->lost, true);
    if (atomic_fetch_sub(&server->serving, 1) != 1)
        return;
    if (atomic_load(&server->lost)) {
        (void)state_stop(&server->state);
        log_stop(LOG_PATIENCE_MS);
        _exit(1);
    }
    uv_async_send(&server->all_drained);
}

static void on_all_drained(uv_async_t *all_drained)
{
    uv_stop(all_drained->loop);
}

static void drain_loops(struct server *server)
{
    for (size_t i = 0; i < server->count; i++)
        uv_async_send(&server->loops[i].drain_asked);
}

static void ask_for_drain(uv_timer_t *timer)
{
    struct server *server = timer->data;
    log_message(LOG_INFO, "draining", "no new connections; %u open",
                totals_connections(server->totals));
    drain_loops(server);
}

/* ---- signals ---- */

static void on_signal(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    uint64_t now_ms = uv_hrtime() / 1000000;
    if (atomic_exchange(&server->stopping, true)) {
        if (now_ms < server->stopping_since_ms + ONE_SIGNAL_MS)
            return;
        log_stop(LOG_IMPATIENCE_MS);
        _exit(128 + number);
    }
    server->stopping_since_ms = now_ms;
    log_message(LOG_INFO, "stopping", "%s: not ready any more, serving for another %llu ms",
                number == SIGTERM  ? "SIGTERM"
                : number == SIGINT ? "SIGINT"
                : number == SIGHUP ? "SIGHUP, and the terminal is closed"
                                   : "SIGQUIT",
                (unsigned long long)server->options->drain_delay_ms);
    service_notify(&server->service, "STOPPING=1");
    uv_timer_start(&server->drain_delay, ask_for_drain, server->options->drain_delay_ms, 0);
}

static void on_hang_up(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    if (terminal_is_gone(server->terminal)) {
        if (!atomic_load(&server->stopping)) /* a shell sends one, and the kernel */
            on_signal(handle, number);
        return;
    }
    credentials_reload(&server->access, server->tls, true);
    log_message(LOG_INFO, "reloading", "SIGHUP: looking for models in %s", server->options->models);
    loader_look(&server->loader);
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

/* What a start cannot do without has failed: everybody who asked meanwhile is answered. Without a
 * line of it: no model was ever served, and the error that follows is what matters. */
static void on_failed(uv_async_t *failed)
{
    struct server *server = failed->data;
    if (!atomic_exchange(&server->stopping, true))
        drain_loops(server);
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
    uv_loop_t *loop = &server->loops[0].uv;
    int status = uv_timer_init(loop, &server->drain_delay);
    server->drain_delay.data = server->failed.data = server;
    if (status == 0)
        status = uv_async_init(loop, &server->failed, on_failed);
    if (status == 0)
        status = uv_async_init(loop, &server->all_drained, on_all_drained);
    for (size_t i = 0; i < sizeof signals / sizeof *signals && status == 0; i++) {
        signals[i].handle->data = server;
        status = uv_signal_init(loop, signals[i].handle);
        if (status == 0)
            status = uv_signal_start(signals[i].handle, signals[i].callback, signals[i].number);
    }
    return status == 0
               ? 0
               : error_set(err, ERROR_INTERNAL, "cannot wait for signals: %s", uv_strerror(status));
}

/* ---- statistics ---- */

static void on_statistics(uv_timer_t *timer)
{
    struct server *server = timer->data;
    const struct catalog *catalog = server->loops[0].lanes.catalog;
    for (size_t i = 0; i < catalog->count; i++)
        model_stats_tick(catalog->models[i]->stats, stats_now());
}

/* More often than a step ends: how late it may be noticed. */
enum { STATISTICS_MS = HISTORY_TICK_MS / 10 };

static int start_statistics(struct server *server, struct error *err)
{
    int status = uv_timer_init(&server->loops[0].uv, &server->statistics);
    server->statistics.data = server;
    if (status == 0)
        status = uv_timer_start(&server->statistics, on_statistics, STATISTICS_MS, STATISTICS_MS);
    uv_unref((uv_handle_t *)&server->statistics);
    return status == 0 ? 0
                       : error_set(err, ERROR_INTERNAL, "cannot start the statistics' timer: %s",
                                   uv_strerror(status));
}

/* ---- the service manager ---- */

/* A loop that has drained turns no more, and the drain has a limit of its own. */
static void on_watchdog(uv_timer_t *timer)
{
    struct server *server = timer->data;
    size_t alive = 0;
    for (size_t i = 0; i < server->count; i++)
        alive += loop_is_alive(&server->loops[i]);
    if (alive == server->count || atomic_load(&server->stopping))
        service_notify(&server->service, "WATCHDOG=1");
}

/* Loops have this many chances to show that they turn. */
enum { SIGNS_OF_LIFE = 4 };

static int start_watchdog(struct server *server, struct error *err)
{
    uint64_t often_ms = server->service.watchdog_ms / SIGNS_OF_LIFE;
    int status = uv_timer_init(&server->loops[0].uv, &server->watchdog);
    server->watchdog.data = server;
    if (status == 0 && server->service.watchdog_ms)
        status = uv_timer_start(&server->watchdog, on_watchdog, often_ms, often_ms ? often_ms : 1);
    uv_unref((uv_handle_t *)&server->watchdog);
    return status == 0 ? 0
                       : error_set(err, ERROR_INTERNAL, "cannot start the watchdog's timer: %s",
                                   uv_strerror(status));
}

/* ---- starting ---- */

static int limit_connections(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    unsigned max_connections;
    if (http_limit_connections(options->max_connections, options->loops, &max_connections, err) !=
        0)
        return -1;
    if (!options->max_connections && max_connections < HTTP_DEFAULT_CONNECTIONS)
        log_message(LOG_WARNING, "few_files",
                    "at most %u connections instead of %d: the limit of open files (ulimit -Hn) "
                    "allows no more",
                    max_connections, HTTP_DEFAULT_CONNECTIONS);
    server->limits = http_limits_new(max_connections, (unsigned)options->max_connections_per_ip,
                                     options->max_total_body_bytes, err);
    return server->limits ? 0 : -1;
}

/* The ports of the next loop: those of the first one, once there is one. */
static struct loop_ports ports_of(const struct server *server)
{
    const struct options *options = server->options;
    const struct loop *first = server->count > 0 ? &server->loops[0] : NULL;
    struct loop_ports ports = {.http = (uint16_t)options->port};
    if (options->grpc_port)
        ports.grpc = (uint16_t)options_grpc_port(options);
    if (first)
        ports.http = http_port(first->main.http);
    if (first && first->rpc.grpc)
        ports.grpc = grpc_port(first->rpc.grpc);
    return ports;
}

static int start_loops(struct server *server, struct error *err)
{
    server->shared = (struct loop_shared){.options = server->options,
                                          .limits = server->limits,
                                          .access = &server->access,
                                          .tls = server->tls,
                                          .loader = &server->loader,
                                          .state = &server->state,
                                          .trace = &server->trace,
                                          .totals = server->totals,
                                          .given_fd = server->service.given_fd,
                                          .stopping = &server->stopping,
                                          .on_drained = on_drained,
                                          .context = server};
    while (server->count < server->options->loops) {
        struct loop *loop = &server->loops[server->count];
        struct loop_ports ports = ports_of(server);
        if (loop_start(loop, &server->shared, server->count, &ports, err) != 0) {
            loop_close(loop);
            return -1;
        }
        server->count++;
    }
    return 0;
}

/* ---- models ---- */

static void announce_admin(const struct server *server)
{
    const struct http *http = server->loops[0].admin.http;
    struct listen_address address;
    struct error err = ERROR_INIT;
    if (!http || listen_address_read(&address, server->options->admin_listen, &err) != 0)
        return;
    if (address.path)
        log_message(LOG_INFO, "admin_listening", "administration and metrics on unix:%s",
                    address.path);
    else
        log_message(LOG_INFO, "admin_listening", "administration and metrics on %s port %u",
                    address.host, http_port(http));
}

static void announce(const struct server *server)
{
    char url[512];
    bool ipv6 = strchr(server->options->host, ':') != NULL;
    snprintf(url, sizeof url, "http%s://%s%.400s%s:%u", server->tls ? "s" : "", ipv6 ? "[" : "",
             server->options->host, ipv6 ? "]" : "", http_port(server->loops[0].main.http));
    log_listening(url);
}

/* On the loader's thread, like the next. */
static void on_published(void *context)
{
    struct server *server = context;
    for (size_t i = 0; i < server->count; i++)
        uv_async_send(&server->loops[i].published);
}

/* What is read again together with the models. */
static void on_look(void *context)
{
    struct server *server = context;
    credentials_reload(&server->access, server->tls, false);
}

static void on_started(const struct error *err, void *context)
{
    struct server *server = context;
    if (err) {
        server->fault = *err;
        uv_async_send(&server->failed);
    } else if (!atomic_load(&server->stopping)) {
        log_message(LOG_INFO, "ready", "event loops: %zu; compute threads of each: %u; kernel: %s",
                    server->count, loop_threads(server->options), moed_kernel_name());
        announce_admin(server);
        announce(server);
        service_notify(&server->service, "READY=1");
    }
}

static void init_loader(struct server *server)
{
    const struct options *options = server->options;
    bool polls = strcmp(options->model_control, "poll") == 0;
    bool by_name = strcmp(options->model_control, "explicit") == 0;
    struct loader_options loader = {
        .repository = {.directory = options->models,
                       .state = &server->state,
                       .may_be_empty = polls || by_name,
                       .by_name = by_name,
                       .models = loop_model_options(options)},
        .poll_ns = polls ? options->model_poll_ms * 1000000 : 0,
        .wanted = options->load_model,
        .strict = options->strict_start,
        .loops = options->loops,
        .context = server,
        .on_published = on_published,
        .on_started = on_started,
        .on_look = on_look,
    };
    loader.repository.models.quarantine = &server->quarantine;
    loader_init(&server->loader, &loader);
}

static struct catalog *newest_catalog(void *context)
{
    struct server *server = context;
    return loader_newest(&server->loader);
}

static int start_tls(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    server->tls_options =
        (struct tls_options){options->tls_cert, options->tls_key, options->tls_client_ca};
    if (!options->tls_cert)
        return 0;
    server->tls = tls_new(&server->tls_options, err);
    return server->tls ? 0 : -1;
}

static bool is_sandboxed(const struct options *options)
{
    return strcmp(options->sandbox, "on") == 0;
}

/* Before any thread is made: Landlock holds for those that come later. */
static void restrict_files(struct server *server)
{
    const struct options *options = server->options;
    struct listen_address admin = {.path = NULL};
    struct error err = ERROR_INIT;
    if (options->admin_listen && listen_address_read(&admin, options->admin_listen, &err) != 0)
        return; /* no option passes with such an address */
    server->files_restricted =
        is_sandboxed(options) && sandbox_restrict_files(options->state, admin.path);
}

/* When every socket is there. */
static void restrict_calls(const struct server *server)
{
    bool calls_restricted =
        is_sandboxed(server->options) && sandbox_restrict_calls(trace_is_on(&server->trace));
    bool both = calls_restricted && server->files_restricted;
    if (is_sandboxed(server->options))
        log_message(both ? LOG_INFO : LOG_WARNING, "sandbox", "seccomp %s, Landlock %s",
                    calls_restricted ? "on" : "is not allowed here",
                    server->files_restricted ? "on" : "is not in this kernel, or not allowed");
}

static int start(struct server *server, struct error *err)
{
    const struct options *options = server->options;
    if (limit_connections(server, err) != 0 || moed_survive_truncation(err) != 0 ||
        access_init(&server->access, options, err) != 0 || start_tls(server, err) != 0 ||
        trace_start(&server->trace, options->trace_endpoint, (unsigned)options->trace_rate, err) !=
            0)
        return -1;
    state_init(&server->state, options->state, options->state_interval_ms * 1000000);
    quarantine_init(&server->quarantine, &server->state);
    init_loader(server);
    if (start_loops(server, err) == 0 && start_signals(server, err) == 0 &&
        start_statistics(server, err) == 0 && start_watchdog(server, err) == 0 &&
        loader_start(&server->loader, err) == 0) {
        state_start(&server->state, newest_catalog, server);
        return 0;
    }
    for (size_t i = 0; i < server->count; i++)
        loop_stop(&server->loops[i]);
    return -1;
}

/* ---- serving ---- */

static void run_thread(void *loop)
{
    loop_run(loop);
}

static void serve(struct server *server)
{
    server->serving = server->count;
    log_message(LOG_INFO, "bound", "%s port %u; loading models from %s", server->options->host,
                http_port(server->loops[0].main.http), server->options->models);
    if (server->loops[0].rpc.grpc)
        log_message(LOG_INFO, "grpc_listening", "gRPC on %s port %u", server->options->host,
                    grpc_port(server->loops[0].rpc.grpc));
    for (size_t i = 1; i < server->count; i++)
        if (uv_thread_create(&server->loops[i].thread, run_thread, &server->loops[i]) != 0) {
            /* the port is shared already: half a server must not stay */
            log_message(LOG_ERROR, "fatal", "cannot start the thread of event loop %zu", i);
            log_stop(LOG_PATIENCE_MS);
            _exit(1);
        }
    loop_run(&server->loops[0]);
    for (size_t i = 1; i < server->count; i++)
        uv_thread_join(&server->loops[i].thread);
    if (server->fault.code == ERROR_NONE)
        log_message(LOG_INFO, "drained", "every accepted request was answered");
    if (!state_stop(&server->state) || !loader_stop(&server->loader)) {
        log_stop(LOG_PATIENCE_MS);
        _exit(0); /* a disk is slow, or the loader has a model in hand, which may take long */
    }
}

int server_run(const struct options *options, struct error *err)
{
    struct server server = {.options = options,
                            .fault = ERROR_INIT,
                            .terminal = terminal_of_start(),
                            .loops = xcalloc(options->loops, sizeof *server.loops),
                            .totals = totals_new(options->loops)};
    ignore_signals();
    int result = service_init(&server.service, err);
    restrict_files(&server);
    uv_replace_allocator(xmalloc, xrealloc, xcalloc, free); /* libuv would abort without a word */
    if (result == 0)
        result = log_start(err);
    if (result == 0)
        result = start(&server, err);
    if (result == 0) {
        restrict_calls(&server);
        serve(&server);
        if (server.fault.code != ERROR_NONE)
            result = error_set(err, server.fault.code, "%s", server.fault.text);
    }
    for (size_t i = 0; i < server.count; i++)
        loop_close(&server.loops[i]);
    loader_close(&server.loader);
    quarantine_close(&server.quarantine);
    state_close(&server.state);
    trace_close(&server.trace);
    free(server.loops);
    totals_free(server.totals);
    http_limits_free(server.limits);
    access_close(&server.access);
    tls_free(server.tls);
    service_close(&server.service);
    log_stop(LOG_PATIENCE_MS);
    return result;
}

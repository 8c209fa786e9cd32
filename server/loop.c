/* A loop from start to drain. It picks up a new catalog between two turns, so a handler sees one
 * catalog only. */
#include "server/loop.h"

#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/access_log.h"
#include "server/cpu.h"
#include "server/http/listen_address.h"
#include "server/log.h"
#include "server/routes/routes.h"

/* While draining, how long a kept connection may stay silent: a client that was about to send its
 * next request has sent it by then. */
enum { DRAIN_GRACE_MS = 250 };

/* The largest answer: the bound on what one request can make the server hold. */
static const size_t MAX_RESPONSE_BYTES = (size_t)256 << 20;

static bool is_vital(const struct exchange *exchange, void *context)
{
    (void)context;
    return routes_is_vital(exchange->path);
}

static int on_header(struct exchange *exchange, void *context, struct error *err)
{
    const struct listener *listener = context;
    return routes_admit(&listener->loop->api, exchange, listener->is_admin, err);
}

static void on_request(struct exchange *exchange, void *context)
{
    const struct listener *listener = context;
    trace_begin(listener->loop->shared->trace, exchange);
    routes_dispatch(&listener->loop->api, exchange);
}

static void on_finished(const struct exchange *exchange, uint64_t duration_ns, void *context)
{
    struct loop *loop = ((struct listener *)context)->loop;
    trace_end(loop->shared->trace, exchange, duration_ns);
    access_log_finished(&loop->access_log, exchange, duration_ns, loop->shared->totals,
                        loop->index);
}

static void on_published(uv_async_t *published)
{
    struct loop *loop = published->data;
    uint64_t number;
    lanes_serve(&loop->lanes, loader_take(loop->shared->loader, &number));
    loader_taken(loop->shared->loader, loop->index, number);
}

static void on_damaged(void *context)
{
    const struct loop *loop = context;
    loader_check(loop->shared->loader);
}

static void on_life_asked(uv_async_t *asked)
{
    atomic_store(&((struct loop *)asked->data)->alive, true);
}

bool loop_is_alive(struct loop *loop)
{
    bool alive = atomic_exchange(&loop->alive, false);
    uv_async_send(&loop->life_asked);
    return alive;
}

/* ---- draining ---- */

static bool is_first(const struct loop *loop)
{
    return loop->index == 0;
}

/* The first loop goes on until all have drained: it must still see a second signal. */
static void on_drained(void *context)
{
    struct loop *loop = context;
    if (--loop->draining > 0)
        return;
    uv_timer_stop(&loop->drain_limit);
    if (!is_first(loop))
        uv_stop(&loop->uv);
    loop->shared->on_drained(loop->shared->context, true);
}

static void on_lost(const struct exchange *exchange, void *context)
{
    (void)context;
    access_log_lost(exchange);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    size_t lost = http_drain_end(loop->main.http, on_lost, loop);
    if (loop->admin.http)
        lost += http_drain_end(loop->admin.http, on_lost, loop);
    if (loop->rpc.grpc)
        lost += grpc_drain_end(loop->rpc.grpc, on_lost, loop);
    if (lost == 0)
        return;
    log_message(LOG_ERROR, "drain_timeout", "%zu request%s without an answer within %llu ms", lost,
                text_s(lost), (unsigned long long)loop->shared->options->drain_timeout_ms);
    loop->shared->on_drained(loop->shared->context, false);
}

static void on_drain_asked(uv_async_t *asked)
{
    struct loop *loop = asked->data;
    uint64_t timeout_ms = loop->shared->options->drain_timeout_ms;
    uv_timer_start(&loop->drain_limit, on_drain_timeout, timeout_ms, 0);
    changes_refuse(&loop->changes);
    live_end(&loop->live);
    loop->draining = 1u + (loop->admin.http != NULL) + (loop->rpc.grpc != NULL);
    http_drain(loop->main.http, DRAIN_GRACE_MS, (unsigned)timeout_ms, on_drained, loop);
    if (loop->admin.http)
        http_drain(loop->admin.http, DRAIN_GRACE_MS, (unsigned)timeout_ms, on_drained, loop);
    if (loop->rpc.grpc)
        grpc_drain(loop->rpc.grpc, DRAIN_GRACE_MS, (unsigned)timeout_ms, on_drained, loop);
}

/* ---- starting ---- */

/* What of `whole` each loop gets: all of it when there is one, and at least `least`. */
uint64_t loop_share(const struct options *options, uint64_t whole, uint64_t least)
{
    uint64_t share = (whole + options->loops - 1) / options->loops;
    return share > least ? share : least;
}

unsigned loop_threads(const struct options *options)
{
    uint64_t threads = options->threads ? options->threads : cpu_count("");
    return (unsigned)loop_share(options, threads, 1);
}

/* Options are checked when they are read. */
static enum moed_weights weights_of(const char *name)
{
    return strcmp(name, "int8") == 0   ? MOED_WEIGHTS_INT8
           : strcmp(name, "int4") == 0 ? MOED_WEIGHTS_INT4
                                       : MOED_WEIGHTS_STORED;
}

static enum moed_activations activations_of(const char *name)
{
    return strcmp(name, "bf16") == 0  ? MOED_ACTIVATIONS_BF16
           : strcmp(name, "f32") == 0 ? MOED_ACTIVATIONS_F32
                                      : MOED_ACTIVATIONS_INT8;
}

struct model_options loop_model_options(const struct options *options)
{
    return (struct model_options){.loops = options->loops,
                                  .max_batch_rows = options->max_batch_rows,
                                  .step_tokens = options->step_tokens,
                                  .threads = loop_threads(options),
                                  .max_tags = options->max_tags,
                                  .weights = weights_of(options->weights),
                                  .activations = activations_of(options->activations),
                                  .kv_f32 = strcmp(options->kv_cache, "f32") == 0,
                                  .copy = strcmp(options->load, "copy") == 0};
}

static void nothing(uv_work_t *work)
{
    (void)work;
}

static void nothing_done(uv_work_t *work, int status)
{
    (void)work, (void)status;
}

/* libuv starts its threads with the first work for them, and ends the process if it cannot: better
 * now than when a large request meets a machine that is short of memory. */
static int start_threads(struct loop *loop)
{
    return uv_queue_work(&loop->uv, &loop->first_work, nothing, nothing_done);
}

/* Each of these takes descriptors, of which there may be none left. */
static int open_loop(struct loop *loop, struct error *err)
{
    int status = uv_loop_init(&loop->uv);
    if (status == 0) {
        loop->uv.data = loop; /* marks a loop that has to be closed */
        uv_timer_init(&loop->uv, &loop->drain_limit);
        loop->drain_asked.data = loop->drain_limit.data = loop->published.data = loop;
        loop->life_asked.data = loop;
        status = uv_async_init(&loop->uv, &loop->drain_asked, on_drain_asked);
    }
    if (status == 0)
        status = uv_async_init(&loop->uv, &loop->published, on_published);
    if (status == 0)
        status = uv_async_init(&loop->uv, &loop->life_asked, on_life_asked);
    if (status == 0)
        status = start_threads(loop);
    if (status == 0)
        return changes_init(&loop->changes, &loop->uv, loop->shared->loader, err);
    return error_set(err, ERROR_INTERNAL, "cannot start an event loop: %s", uv_strerror(status));
}

static void init_lanes(struct loop *loop)
{
    const struct options *options = loop->shared->options;
    const struct once_options once = {
        .loop = loop->index,
        .loops = options->loops,
        .max_batch_rows = options->max_batch_rows,
        /* the largest request must fit in one loop's queue */
        .max_queue_rows = loop_share(options, options->max_queue_rows, options->max_request_rows),
        .threads = loop_threads(options),
        .max_queue_delay_ns = options->max_queue_delay_us * 1000,
        .on_finished = predict_finished,
        .on_damaged = on_damaged,
        .context = loop,
    };
    const struct sequences_options sequences = {
        .loop = loop->index,
        .max_sequences = loop_share(options, options->max_sequences, 1),
        .step_tokens = options->step_tokens,
        .cache_bytes = loop_share(options, options->kv_cache_mb << 20, 0),
        .max_queue_tokens = loop_share(options, options->max_queue_rows, 1),
        .threads = loop_threads(options),
        .on_damaged = on_damaged,
        .context = loop,
    };
    lanes_init(&loop->lanes, &loop->scheduler, &once, &sequences,
               loader_newest(loop->shared->loader));
}

/* Listens where `where` says; the rest of it is filled in here. */
static int start_listener(struct listener *listener, struct http_options *where, bool is_grpc,
                          struct error *err)
{
    const struct loop_shared *shared = listener->loop->shared;
    const struct options *options = shared->options;
    where->limits = shared->limits;
    where->tls = where->path ? NULL : shared->tls;
    where->max_body_bytes = options->max_body_bytes;
    where->request_timeout_ms = (unsigned)options->request_timeout_ms;
    where->idle_timeout_ms = (unsigned)options->idle_timeout_ms;
    const struct http_callbacks callbacks = {.context = listener,
                                             .is_vital = is_vital,
                                             .on_header = on_header,
                                             .on_request = on_request,
                                             .write_error = routes_write_error,
                                             .on_finished = on_finished};
    if (is_grpc)
        listener->grpc = grpc_new(&listener->loop->uv, where, &callbacks, err);
    else
        listener->http = http_new(&listener->loop->uv, where, &callbacks, err);
    return listener->grpc || listener->http ? 0 : -1;
}

static enum http_listening listening_of(const struct loop *loop)
{
    return loop->shared->options->loops == 1 ? HTTP_LISTEN_ALONE
           : is_first(loop)                  ? HTTP_LISTEN_FIRST
                                             : HTTP_LISTEN_JOIN;
}

static int start_main(struct loop *loop, uint16_t port, struct error *err)
{
    const struct options *options = loop->shared->options;
    struct http_options where = {.host = options->host,
                                 .port = port,
                                 .given_fd = loop->shared->given_fd,
                                 .listening = listening_of(loop)};
    loop->main.loop = loop;
    return start_listener(&loop->main, &where, false, err);
}

static int start_grpc(struct loop *loop, uint16_t port, struct error *err)
{
    const struct options *options = loop->shared->options;
    struct http_options where = {
        .host = options->host, .port = port, .listening = listening_of(loop)};
    loop->rpc.loop = loop;
    return options->grpc_port ? start_listener(&loop->rpc, &where, true, err) : 0;
}

static int start_admin(struct loop *loop, struct error *err)
{
    const char *text = loop->shared->options->admin_listen;
    struct listen_address address;
    loop->admin = (struct listener){.loop = loop, .is_admin = true};
    if (!text || !is_first(loop))
        return 0;
    if (listen_address_read(&address, text, err) != 0)
        return -1;
    struct http_options where = {.host = address.host,
                                 .port = address.port,
                                 .path = address.path,
                                 .listening = HTTP_LISTEN_ALONE};
    return start_listener(&loop->admin, &where, false, err);
}

static void close_listeners(struct loop *loop)
{
    if (loop->main.http)
        http_close(loop->main.http);
    if (loop->admin.http)
        http_close(loop->admin.http);
    if (loop->rpc.grpc)
        grpc_close(loop->rpc.grpc);
}

static int start_listeners(struct loop *loop, const struct loop_ports *ports, struct error *err)
{
    if (start_main(loop, ports->http, err) != 0 || start_admin(loop, err) != 0 ||
        start_grpc(loop, ports->grpc, err) != 0) {
        close_listeners(loop);
        return -1;
    }
    struct loop_totals *totals = &loop->shared->totals->loop[loop->index];
    totals->http = loop->main.http;
    totals->admin = loop->admin.http;
    totals->grpc = loop->rpc.grpc;
    return 0;
}

static void init_log(struct loop *loop)
{
    const struct options *options = loop->shared->options;
    uint64_t most = options->log_max_per_second;
    loop->access_log = (struct access_log){.slow_ns = options->log_slow_ms * 1000000,
                                           .per_second = most ? loop_share(options, most, 1) : 0};
}

int loop_start(struct loop *loop, const struct loop_shared *shared, size_t index,
               const struct loop_ports *ports, struct error *err)
{
    const struct options *options = shared->options;
    const struct infer_limits limits = {.max_rows = options->max_request_rows,
                                        .max_response_bytes = MAX_RESPONSE_BYTES,
                                        .non_finite = strcmp(options->non_finite, "accept") == 0};
    loop->shared = shared;
    loop->index = index;
    loop->alive = true;
    init_log(loop);
    init_lanes(loop);
    if (open_loop(loop, err) != 0 ||
        scheduler_init(&loop->scheduler, &loop->uv, loop_threads(options), lanes_on_empty,
                       &loop->lanes, err) != 0)
        return -1;
    predict_init(&loop->predict, &loop->uv, &loop->lanes, &limits, options->queue_timeout_ms);
    generations_init(&loop->generations, &loop->uv, &loop->lanes, options->queue_timeout_ms,
                     MAX_RESPONSE_BYTES);
    live_init(&loop->live, &loop->uv);
    loop->api = (struct api){.options = options,
                             .access = shared->access,
                             .lanes = &loop->lanes,
                             .predict = &loop->predict,
                             .generations = &loop->generations,
                             .changes = &loop->changes,
                             .stopping = shared->stopping,
                             .totals = shared->totals,
                             .live = &loop->live,
                             .state = shared->state,
                             .trace = shared->trace};
    if (start_listeners(loop, ports, err) == 0)
        return 0;
    predict_close(&loop->predict);
    generations_close(&loop->generations);
    scheduler_close(&loop->scheduler);
    return -1;
}

/* ---- ending ---- */

void loop_stop(struct loop *loop)
{
    close_listeners(loop);
    predict_close(&loop->predict);
    generations_close(&loop->generations);
    scheduler_close(&loop->scheduler);
}

void loop_run(struct loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    loader_leave(loop->shared->loader, loop->index);
    loop_stop(loop);
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void loop_close(struct loop *loop)
{
    if (loop->uv.data) {
        uv_walk(&loop->uv, close_handle, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT); /* runs the closed handles out */
        uv_loop_close(&loop->uv);
    }
    changes_close(&loop->changes);
    lanes_close(&loop->lanes);
}

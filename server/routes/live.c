/* A stream is a timer that writes an event to its exchange. A client that does not keep up misses
 * events: each says everything, so the next one makes up for it. */
#include "server/routes/live.h"

#include <stdlib.h>

#include "core/memory.h"
#include "proto/routing.h"
#include "server/routes/describe.h"

enum { EVENT_MS = 1000 };
/* Every stream keeps a connection and adds up counters once a second; pages are few. */
enum { MAX_STREAMS = 64 };

struct live_stream {
    struct live *live;
    const struct api *api;
    struct exchange *exchange; /* holds the model */
    enum window window;
    uv_timer_t timer;
    TAILQ_ENTRY(live_stream) link;
};

void live_init(struct live *live, uv_loop_t *loop)
{
    *live = (struct live){.loop = loop};
    TAILQ_INIT(&live->streams);
}

/* ---- an event ---- */

static void append_document(const struct model *model, enum window window, struct buffer *body)
{
    const size_t gates = model->info->gate_count;
    struct routing_layer *layers = xcalloc(gates, sizeof *layers);
    struct stats_window counted;
    stats_window_init(&counted, model->stats, window, STATS_ALL_TAGS, false, stats_now());
    for (size_t i = 0; i < gates; i++)
        layers[i] = (struct routing_layer){.name = model->info->gates[i].name,
                                           .top_k = model->info->gates[i].top_k,
                                           .counts = counted.tally->gates[i]};
    const struct routing_document document = {.model = model->name,
                                              .version = model->version,
                                              .window = window_name(window),
                                              .seconds = counted.seconds,
                                              .rows = counted.tally->rows,
                                              .layers = layers,
                                              .layer_count = gates};
    routing_write_live(&document, HTTP_STREAM_MAX_BYTES - 64, body);
    stats_window_close(&counted);
    free(layers);
}

static void send_event(const struct live_stream *stream)
{
    struct buffer body;
    buffer_init(&body, HTTP_STREAM_MAX_BYTES);
    buffer_text(&body, "data: ");
    append_document(stream->exchange->model, stream->window, &body);
    buffer_text(&body, "\n\n");
    if (!body.failed)
        (void)exchange_write(stream->exchange, body.data, body.length); /* or the next one */
    buffer_close(&body);
}

/* ---- a stream ---- */

static void on_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void end(struct live_stream *stream)
{
    TAILQ_REMOVE(&stream->live->streams, stream, link);
    stream->live->count--;
    exchange_end(stream->exchange);
    uv_close((uv_handle_t *)&stream->timer, on_closed);
}

void live_end(struct live *live)
{
    live->ended = true;
    for (struct live_stream *stream; (stream = TAILQ_FIRST(&live->streams));)
        end(stream);
}

static void on_time(uv_timer_t *timer)
{
    struct live_stream *stream = timer->data;
    if (!catalog_has(stream->api->lanes->catalog, stream->exchange->model))
        end(stream);
    else
        send_event(stream);
}

static void on_client_gone(uv_timer_t *timer)
{
    end(timer->data);
}

/* The exchange is ended outside the call that says that its client is gone. */
static void on_disconnect(struct exchange *exchange)
{
    struct live_stream *stream = exchange->owner;
    uv_timer_start(&stream->timer, on_client_gone, 0, 0);
}

void live_routing(const struct api *api, struct exchange *exchange, const struct target *target)
{
    static const char *const NAMES[] = {"window", NULL};
    struct error err = ERROR_INIT;
    enum window window = WINDOW_1M;
    (void)target;
    if (exchange_query_names(exchange, NAMES, &err) == 0 &&
        describe_read_window(exchange, &window, &err) == 0 && api->live->ended)
        error_set(&err, ERROR_UNAVAILABLE, "the server is stopping");
    else if (api->live->count >= MAX_STREAMS)
        error_set(&err, ERROR_OVERLOADED, "%d live views are open already", MAX_STREAMS);
    if (err.code != ERROR_NONE) {
        exchange_reply_error(exchange, &err);
        return;
    }
    struct live_stream *stream = xcalloc(1, sizeof *stream);
    *stream =
        (struct live_stream){.live = api->live, .api = api, .exchange = exchange, .window = window};
    TAILQ_INSERT_TAIL(&api->live->streams, stream, link);
    api->live->count++;
    exchange->owner = stream;
    exchange->on_disconnect = on_disconnect;
    exchange->endless = true;
    uv_timer_init(api->live->loop, &stream->timer);
    stream->timer.data = stream;
    uv_timer_start(&stream->timer, on_time, EVENT_MS, EVENT_MS);
    exchange_header(exchange, "Cache-Control", "no-store");
    exchange_begin(exchange, 200, "text/event-stream");
    send_event(stream);
}

/* Which requests are traced, and what their spans say. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "server/http/http.h"
#include "server/models/model.h"
#include "server/trace.h"

void trace_begin(const struct trace *trace, struct exchange *exchange)
{
    if (!trace_is_on(trace))
        return;
    exchange->whole_ns = uv_hrtime();
    trace_context_read(exchange_header_in(exchange, "traceparent"), &exchange->trace);
}

static bool has_parent(const struct exchange *exchange)
{
    static const uint8_t none[TRACE_ID_BYTES];
    return memcmp(exchange->trace.trace, none, sizeof none) != 0;
}

static bool is_sampled(struct trace *trace, const struct exchange *exchange)
{
    if (has_parent(exchange))
        return exchange->trace.sampled;
    unsigned rate = atomic_load(&trace->off) ? 0 : atomic_load(&trace->rate);
    return rate > 0 && atomic_fetch_add(&trace->candidates, 1) % rate == 0;
}

static uint64_t now_since_1970(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

#define COPY(to, from) snprintf((to), sizeof(to), "%s", (from))

/* "/v2/models/{m}" as "/v2/models/{model}", cut to what fits. */
static void spell_route(const char *pattern, char *route, size_t size)
{
    static const char *const NAMES[][2] = {{"{m}", "{model}"}, {"{v}", "{version}"}};
    size_t length = 0;
    while (*pattern && length + 1 < size) {
        const char *name = NULL;
        for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && !name; i++)
            if (strncmp(pattern, NAMES[i][0], strlen(NAMES[i][0])) == 0)
                name = NAMES[i][1];
        const int added = name ? snprintf(route + length, size - length, "%s", name)
                               : snprintf(route + length, size - length, "%c", *pattern);
        length += (size_t)added;
        pattern += name ? strlen("{m}") : 1;
    }
}

/* As OpenTelemetry's conventions have it: method and route over HTTP, service and method over gRPC.
 * What is not known has one name, so that clients cannot make up any number of them. */
static void name_request(const struct exchange *exchange, struct otlp_span *span)
{
    if (exchange->edge) {
        COPY(span->name, exchange->log_route ? exchange->path + 1 : "gRPC");
        return;
    }
    if (exchange->log_route)
        spell_route(exchange->log_route, span->route, sizeof span->route);
    snprintf(span->name, sizeof span->name, "%s%s%s",
             exchange->method == HTTP_OTHER ? "HTTP" : span->method, *span->route ? " " : "",
             span->route);
}

static void describe(const struct exchange *exchange, uint64_t duration_ns, struct otlp_span *span)
{
    *span = (struct otlp_span){.context = exchange->trace,
                               .start_ns = now_since_1970() - duration_ns,
                               .duration_ns = duration_ns,
                               .rows = exchange->log_rows,
                               .status = exchange->status};
    span->stage_ns[OTLP_RECEIVE] = exchange->whole_ns - exchange->received_ns;
    span->stage_ns[OTLP_ADMIT] = exchange->log_decode_ns;
    span->stage_ns[OTLP_QUEUE] = exchange->log_queue_ns;
    span->stage_ns[OTLP_COMPUTE] = exchange->log_compute_ns;
    span->stage_ns[OTLP_ENCODE] = exchange->log_encode_ns;
    COPY(span->method, exchange->method_text);
    COPY(span->path, exchange->path);
    name_request(exchange, span);
    COPY(span->client, exchange->client);
    COPY(span->request_id, exchange->request_id);
    if (exchange->model) {
        COPY(span->model, exchange->model->name);
        COPY(span->version, exchange->model->version);
    }
}

/* False where the system has no random bytes yet. */
static bool name_spans(struct otlp_span *span, bool has_trace)
{
    uint8_t random[TRACE_ID_BYTES + (1 + OTLP_STAGES) * SPAN_ID_BYTES];
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != sizeof random)
        return false;
    if (!has_trace)
        memcpy(span->context.trace, random, TRACE_ID_BYTES);
    memcpy(span->id, random + TRACE_ID_BYTES, SPAN_ID_BYTES);
    memcpy(span->stage_id, random + TRACE_ID_BYTES + SPAN_ID_BYTES, sizeof span->stage_id);
    return true;
}

void trace_end(struct trace *trace, const struct exchange *exchange, uint64_t duration_ns)
{
    struct otlp_span span;
    if (exchange->whole_ns == 0 || !exchange->log_protocol || !is_sampled(trace, exchange))
        return;
    describe(exchange, duration_ns, &span);
    if (name_spans(&span, has_parent(exchange)))
        trace_add(trace, &span);
    else
        atomic_fetch_add(&trace->lost, 1);
}

/* Spans wait here, and a thread sends them. */
#include "server/trace.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/log.h"

/* An export is sent when so many spans wait, or the oldest has waited so long. */
enum { SPANS_PER_EXPORT = 512, EXPORT_MS = 1000, MAX_EXPORT_BYTES = 4 << 20 };

/* ---- sending ---- */

/* The same failure is told once. */
static void tell(const struct error *err, bool *failing)
{
    if (err->code != ERROR_NONE && !*failing)
        log_message(LOG_WARNING, "trace_not_sent", "%s; spans are lost until it works", err->text);
    if (err->code == ERROR_NONE && *failing)
        log_message(LOG_INFO, "trace_sent", "the collector takes spans again");
    *failing = err->code != ERROR_NONE;
}

static uint64_t end_of_patience(void)
{
    return uv_hrtime() + (uint64_t)TRACE_PATIENCE_S * 1000000000;
}

static void export_spans(struct trace *trace, const struct otlp_span *spans, size_t count,
                         bool *failing)
{
    struct error err = ERROR_INIT;
    struct buffer body;
    uint64_t until_ns = end_of_patience(), end_ns = atomic_load(&trace->end_ns);
    until_ns = end_ns < until_ns ? end_ns : until_ns;
    buffer_init(&body, MAX_EXPORT_BYTES);
    otlp_encode(spans, count, MOED_VERSION, &body);
    int result = body.failed ? buffer_error(&body, "an export of spans", "they are lost", &err)
                             : trace_post(&trace->collector, &body, until_ns, &err);
    buffer_close(&body);
    atomic_fetch_add(result == 0 ? &trace->sent : &trace->lost, count);
    tell(&err, failing);
}

/* After a failure the rest is lost at once: who cannot be reached is not waited for again and
 * again.
 */
static void export_all(struct trace *trace, const struct otlp_span *spans, size_t count,
                       bool *failing)
{
    for (size_t at = 0, part; at < count; at += part) {
        part = count - at < SPANS_PER_EXPORT ? count - at : SPANS_PER_EXPORT;
        if (at > 0 && *failing)
            atomic_fetch_add(&trace->lost, part);
        else
            export_spans(trace, spans + at, part, failing);
    }
}

/* What waits is exchanged for an empty array, so that loops, which add to it, do not wait. */
static void run(void *context)
{
    struct trace *trace = context;
    struct otlp_span *taken = xcalloc(TRACE_MOST_WAITING, sizeof *taken);
    bool failing = false;
    uv_mutex_lock(&trace->mutex);
    while (!trace->ending || trace->count > 0) {
        if (!trace->ending && trace->count < SPANS_PER_EXPORT)
            uv_cond_timedwait(&trace->wake, &trace->mutex, (uint64_t)EXPORT_MS * 1000000);
        struct otlp_span *spans = trace->waiting;
        size_t count = trace->count;
        trace->waiting = taken;
        trace->count = 0;
        uv_mutex_unlock(&trace->mutex);
        export_all(trace, spans, count, &failing);
        taken = spans;
        uv_mutex_lock(&trace->mutex);
    }
    uv_mutex_unlock(&trace->mutex);
    free(taken);
}

void trace_add(struct trace *trace, const struct otlp_span *span)
{
    uv_mutex_lock(&trace->mutex);
    bool fits = trace->count < TRACE_MOST_WAITING;
    if (fits)
        trace->waiting[trace->count++] = *span;
    if (trace->count == SPANS_PER_EXPORT)
        uv_cond_signal(&trace->wake);
    uv_mutex_unlock(&trace->mutex);
    if (!fits)
        atomic_fetch_add(&trace->lost, 1);
}

/* ---- life ---- */

bool trace_is_on(const struct trace *trace)
{
    return *trace->collector.host != '\0';
}

int trace_start(struct trace *trace, const char *url, unsigned rate, struct error *err)
{
    atomic_store(&trace->rate, rate);
    atomic_store(&trace->end_ns, UINT64_MAX);
    if (!url || !*url)
        return 0;
    if (trace_collector_read(&trace->collector, url, err) != 0)
        return -1;
    trace->waiting = xcalloc(TRACE_MOST_WAITING, sizeof *trace->waiting);
    if (uv_mutex_init(&trace->mutex) != 0 || uv_cond_init(&trace->wake) != 0)
        out_of_memory();
    trace->has_thread = uv_thread_create(&trace->thread, run, trace) == 0;
    return trace->has_thread ? 0
                             : error_set(err, ERROR_INTERNAL, "cannot start the thread of traces");
}

void trace_close(struct trace *trace)
{
    if (!trace->waiting)
        return;
    if (trace->has_thread) {
        uv_mutex_lock(&trace->mutex);
        trace->ending = true;
        atomic_store(&trace->end_ns, end_of_patience());
        uv_cond_signal(&trace->wake);
        uv_mutex_unlock(&trace->mutex);
        uv_thread_join(&trace->thread);
    }
    uv_cond_destroy(&trace->wake);
    uv_mutex_destroy(&trace->mutex);
    free(trace->waiting);
    trace->waiting = NULL;
}

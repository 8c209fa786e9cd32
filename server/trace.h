/* Traces: requests of inference as spans, sent to a collector by OpenTelemetry's protocol.
 *
 * A request that says in "traceparent" whether it is traced, is or is not; of the others one in
 * `rate`. Spans wait in bounded memory for the sending thread; what does not fit is counted. */
#ifndef SERVER_TRACE_H
#define SERVER_TRACE_H

#include <stdatomic.h>
#include <uv.h>

#include "core/error.h"
#include "proto/otlp.h"

struct exchange;

enum { TRACE_HOST_BYTES = 256, TRACE_PATH_BYTES = 256, TRACE_PORT_BYTES = 6 };

struct trace_collector {
    char host[TRACE_HOST_BYTES], port[TRACE_PORT_BYTES], path[TRACE_PATH_BYTES];
};

struct trace {
    struct trace_collector collector; /* host "": nothing is traced, and only the next is there */
    atomic_uint rate;                 /* of requests without a trace one in so many; 0: none */
    atomic_bool off;                  /* none of them, whatever the rate */
    atomic_ullong candidates;
    atomic_ullong sent, lost;
    atomic_ullong end_ns; /* when the thread gives up; UINT64_MAX until trace_close() */
    uv_thread_t thread;
    uv_mutex_t mutex; /* guards the rest */
    uv_cond_t wake;
    struct otlp_span *waiting; /* [count], room for TRACE_MOST_WAITING */
    size_t count;
    bool ending, has_thread;
};

enum { TRACE_MOST_WAITING = 2048 };

/* Reads http://HOST[:PORT][/PATH]; the path is else /v1/traces. */
MUST_CHECK int trace_collector_read(struct trace_collector *collector, const char *url,
                                    struct error *err);

enum { TRACE_PATIENCE_S = 5 };

/* `url` NULL or "": nothing is traced. The thread sends until trace_close(), which gives it
 * TRACE_PATIENCE_S for what waits; what a collector has not taken by then is lost. Only a name that
 * must be looked up may take longer. */
MUST_CHECK int trace_start(struct trace *trace, const char *url, unsigned rate, struct error *err);
void trace_close(struct trace *trace);

bool trace_is_on(const struct trace *trace);

/* When a request is whole, and when it has ended. On any loop's thread. */
void trace_begin(const struct trace *trace, struct exchange *exchange);
void trace_end(struct trace *trace, const struct exchange *exchange, uint64_t duration_ns);

/* Hands a span to the sending thread; one that has no room is counted as lost. */
void trace_add(struct trace *trace, const struct otlp_span *span);

/* Sends one export and waits for the answer, until uv_hrtime() is `until_ns`. */
MUST_CHECK int trace_post(const struct trace_collector *collector, const struct buffer *body,
                          uint64_t until_ns, struct error *err);

#endif

/* W3C's trace context: which trace a request belongs to, from the header "traceparent". */
#ifndef PROTO_TRACE_CONTEXT_H
#define PROTO_TRACE_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#define TRACE_ID_BYTES 16
#define SPAN_ID_BYTES  8

struct trace_context {
    uint8_t trace[TRACE_ID_BYTES];
    uint8_t parent[SPAN_ID_BYTES]; /* the client's span; all zero: there is none */
    bool sampled;
};

/* Reads 00-<32 hex digits>-<16>-<2>, or what a later version begins with. False, and `context`
 * as it was, where the text is no such thing: then the request begins a trace of its own. */
bool trace_context_read(const char *text, struct trace_context *context);

#endif

/* The trace extension of the Open Inference Protocol, as Triton has it in its OpenTelemetry mode.
 */
#ifndef PROTO_OIP_TRACE_H
#define PROTO_OIP_TRACE_H

#include <stdbool.h>

#include "core/error.h"
#include "proto/buffer.h"

struct oip_trace {
    bool has_collector;
    bool off;      /* "OFF": none but those whose client asks for it. A new rate ends it */
    unsigned rate; /* of requests without a trace one in so many; 0: none, as without a collector */
};

/* Members that are absent leave `settings` as they are. What this server cannot set is refused. */
MUST_CHECK int oip_decode_trace(const char *body, size_t length, struct oip_trace *settings,
                                struct error *err);
void oip_trace_document(const struct oip_trace *settings, struct buffer *body);

#endif

/* Requests as spans in OpenTelemetry's protocol (OTLP/HTTP, JSON). */
#ifndef PROTO_OTLP_H
#define PROTO_OTLP_H

#include "proto/buffer.h"
#include "proto/trace_context.h"

/* What a request spent its time with, one after the other. */
enum otlp_stage {
    OTLP_RECEIVE, /* from its first byte to its last */
    OTLP_ADMIT,   /* decoding and checking it */
    OTLP_QUEUE,
    OTLP_COMPUTE,
    OTLP_ENCODE,
    OTLP_STAGES
};

/* A request that has ended. Texts are cut to what fits. */
struct otlp_span {
    struct trace_context context;
    uint8_t id[SPAN_ID_BYTES];
    uint8_t stage_id[OTLP_STAGES][SPAN_ID_BYTES];
    uint64_t start_ns; /* since 1970 */
    uint64_t duration_ns;
    uint64_t stage_ns[OTLP_STAGES]; /* 0: the stage has no span */
    char name[96], route[80];       /* of bounded cardinality; route "": none */
    char method[8], path[128], client[48], request_id[64];
    char model[64], version[32]; /* "": none */
    size_t rows;
    int status; /* HTTP's */
};

/* Appends the body of POST /v1/traces, from a server of this version. */
void otlp_encode(const struct otlp_span *spans, size_t count, const char *version,
                 struct buffer *body);

#endif

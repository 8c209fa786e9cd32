/* https://opentelemetry.io/docs/specs/otlp/#otlphttp: ids are hex, numbers of 64 bits are strings.
 * Attributes have the names of OpenTelemetry's semantic conventions where those have one. */
#include "proto/otlp.h"

#include <inttypes.h>
#include <string.h>

#include "proto/json.h"

/* Of spans. */
enum { KIND_INTERNAL = 1, KIND_SERVER = 2 };

static const char *const STAGE_NAMES[OTLP_STAGES] = {"receive", "admit", "queue", "compute",
                                                     "encode"};

/* ---- parts of a span ---- */

static void append_id(struct buffer *body, const char *key, const uint8_t *id, size_t count)
{
    buffer_format(body, "\"%s\":\"", key);
    for (size_t i = 0; i < count; i++)
        buffer_format(body, "%02x", id[i]);
    buffer_text(body, "\",");
}

static void append_times(struct buffer *body, uint64_t start_ns, uint64_t duration_ns)
{
    buffer_format(body, "\"startTimeUnixNano\":\"%" PRIu64 "\",\"endTimeUnixNano\":\"%" PRIu64 "\"",
                  start_ns, start_ns + duration_ns);
}

static void append_text(struct buffer *body, const char *key, const char *value)
{
    if (!*value)
        return;
    buffer_format(body, ",{\"key\":\"%s\",\"value\":{\"stringValue\":", key);
    json_append_string(body, value);
    buffer_text(body, "}}");
}

static void append_attributes(struct buffer *body, const struct otlp_span *span)
{
    buffer_format(body,
                  ",\"attributes\":[{\"key\":\"http.response.status_code\",\"value\":{\"intValue\":"
                  "\"%d\"}}",
                  span->status);
    append_text(body, "http.request.method", span->method);
    append_text(body, "http.route", span->route);
    append_text(body, "url.path", span->path);
    append_text(body, "client.address", span->client);
    append_text(body, "moed.request_id", span->request_id);
    append_text(body, "moed.model", span->model);
    append_text(body, "moed.version", span->version);
    if (span->rows > 0)
        buffer_format(body, ",{\"key\":\"moed.rows\",\"value\":{\"intValue\":\"%zu\"}}",
                      span->rows);
    buffer_text(body, "]");
}

/* ---- spans ---- */

/* What a server's own failure is; a client's is no error of its span. */
static bool failed(const struct otlp_span *span)
{
    return span->status >= 500;
}

static void append_request(struct buffer *body, const struct otlp_span *span)
{
    static const uint8_t none[SPAN_ID_BYTES];
    buffer_text(body, "{");
    append_id(body, "traceId", span->context.trace, TRACE_ID_BYTES);
    append_id(body, "spanId", span->id, SPAN_ID_BYTES);
    if (memcmp(span->context.parent, none, sizeof none) != 0)
        append_id(body, "parentSpanId", span->context.parent, SPAN_ID_BYTES);
    buffer_format(body, "\"kind\":%d,\"name\":", KIND_SERVER);
    json_append_string(body, span->name);
    buffer_text(body, ",");
    append_times(body, span->start_ns, span->duration_ns);
    append_attributes(body, span);
    buffer_format(body, ",\"status\":{%s}}", failed(span) ? "\"code\":2" : "");
}

static void append_stages(struct buffer *body, const struct otlp_span *span)
{
    uint64_t start_ns = span->start_ns;
    for (size_t i = 0; i < OTLP_STAGES; i++) {
        if (span->stage_ns[i] == 0)
            continue;
        buffer_text(body, ",{");
        append_id(body, "traceId", span->context.trace, TRACE_ID_BYTES);
        append_id(body, "spanId", span->stage_id[i], SPAN_ID_BYTES);
        append_id(body, "parentSpanId", span->id, SPAN_ID_BYTES);
        buffer_format(body, "\"kind\":%d,\"name\":\"%s\",", KIND_INTERNAL, STAGE_NAMES[i]);
        append_times(body, start_ns, span->stage_ns[i]);
        buffer_text(body, "}");
        start_ns += span->stage_ns[i];
    }
}

void otlp_encode(const struct otlp_span *spans, size_t count, const char *version,
                 struct buffer *body)
{
    buffer_text(body, "{\"resourceSpans\":[{\"resource\":{\"attributes\":["
                      "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"moed\"}}");
    append_text(body, "service.version", version);
    buffer_text(body, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"moed\"},\"spans\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_text(body, ",");
        append_request(body, &spans[i]);
        append_stages(body, &spans[i]);
    }
    buffer_text(body, "]}]}]}");
}

/* One line per exchange, at level info. Overload and failures of the server are at level warning:
 * an operator should see them without asking. */
#include "server/access_log.h"

#include <string.h>

#include "server/http/http.h"
#include "server/log.h"
#include "server/models/model.h"
#include "server/routes/request_times.h"
#include "server/statistics/totals.h"

/* A text takes as long as it is: of a language model's requests, those are slow that waited. */
static bool is_slow(const struct access_log *log, const struct exchange *exchange,
                    uint64_t duration_ns)
{
    const char *protocol = exchange->log_protocol;
    const bool text = protocol && strcmp(protocol, "openai") == 0;
    const uint64_t ns = text ? exchange->log_queue_ns : duration_ns;
    return log->slow_ns > 0 && ns > log->slow_ns && !exchange->endless;
}

static enum log_level level_of(const struct access_log *log, const struct exchange *exchange,
                               uint64_t duration_ns)
{
    bool ours = exchange->status >= 500 || exchange->status == error_http_status(ERROR_OVERLOADED);
    return ours || is_slow(log, exchange, duration_ns) ? LOG_WARNING : LOG_INFO;
}

/* In a flood, the first lines of each second say what it is about. */
static bool may_write(struct access_log *log, enum log_level level)
{
    uint64_t second = uv_hrtime() / 1000000000;
    if (second != log->second)
        memset(log->written, 0, sizeof log->written);
    log->second = second;
    if (log->per_second == 0 || log->written[level]++ < log->per_second)
        return true;
    log->unwritten++;
    return false;
}

static void add_inference(struct log_line *line, const struct exchange *exchange)
{
    if (exchange->model) {
        log_text(line, "model", exchange->model->name);
        log_text(line, "version", exchange->model->version);
    }
    if (exchange->log_rows == 0)
        return;
    log_number(line, "rows", exchange->log_rows);
    log_milliseconds(line, "decode_ms", exchange->log_decode_ns);
    log_milliseconds(line, "queue_ms", exchange->log_queue_ns);
    log_milliseconds(line, "compute_ms", exchange->log_compute_ns);
    log_milliseconds(line, "encode_ms", exchange->log_encode_ns);
}

static void log_exchange(struct access_log *log, const struct exchange *exchange,
                         uint64_t duration_ns)
{
    struct log_line line;
    enum log_level level = level_of(log, exchange, duration_ns);
    if (!log_enabled(level) || !may_write(log, level))
        return;
    log_begin(&line, level, "request");
    log_text(&line, "client", exchange->client);
    log_text(&line, "method", exchange->method_text);
    log_text(&line, "path", exchange->path);
    log_number(&line, "status", (uint64_t)exchange->status);
    log_milliseconds(&line, "ms", duration_ns);
    log_number(&line, "in", exchange->body_length);
    log_number(&line, "out", exchange->reply_length);
    if (*exchange->request_id)
        log_text(&line, "id", exchange->request_id);
    if (*exchange->token_name)
        log_text(&line, "token", exchange->token_name);
    add_inference(&line, exchange);
    if (is_slow(log, exchange, duration_ns))
        log_text(&line, "slow", "true");
    if (exchange->error_text)
        log_text(&line, "error", exchange->error_text);
    if (log->unwritten > 0)
        log_number(&line, "unwritten", log->unwritten);
    log->unwritten = 0;
    log_end(&line);
}

/* Inference requests count at their model; other requests only when they failed. */
static void count_exchange(const struct exchange *exchange, uint64_t duration_ns,
                           struct totals *totals, size_t loop)
{
    const char *protocol = exchange->log_protocol ? exchange->log_protocol : "";
    if (exchange->log_protocol && exchange->model) {
        request_times_add(&exchange->model->stats->loop[loop], exchange, duration_ns);
    } else if (exchange->log_protocol || exchange->status >= 400) {
        struct loop_totals *own = &totals->loop[loop];
        uv_mutex_lock(&own->mutex);
        request_counts_add(&own->other_requests, protocol, exchange->status, 1);
        uv_mutex_unlock(&own->mutex);
    }
}

void access_log_finished(struct access_log *log, const struct exchange *exchange,
                         uint64_t duration_ns, struct totals *totals, size_t loop)
{
    count_exchange(exchange, duration_ns, totals, loop);
    log_exchange(log, exchange, duration_ns);
    model_release(exchange->model);
}

void access_log_lost(const struct exchange *exchange)
{
    struct log_line line;
    log_begin(&line, LOG_ERROR, "request_lost");
    log_text(&line, "client", exchange->client);
    log_text(&line, "method", exchange->method_text);
    log_text(&line, "path", exchange->path);
    if (*exchange->request_id)
        log_text(&line, "id", exchange->request_id);
    log_milliseconds(&line, "ms", uv_hrtime() - exchange->received_ns);
    if (exchange->log_rows)
        log_number(&line, "rows", exchange->log_rows);
    log_end(&line);
}

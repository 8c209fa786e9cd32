/* One line per exchange, at level info. Overload and failures of the server are at level warning:
 * an operator should see them without asking. */
#include "server/access_log.h"

#include "server/http.h"
#include "server/log.h"
#include "server/model.h"
#include "server/totals.h"

static enum log_level level_of(int status)
{
    bool ours = status >= 500 || status == error_http_status(ERROR_OVERLOADED);
    return ours ? LOG_WARNING : LOG_INFO;
}

static void log_exchange(const struct exchange *exchange, uint64_t duration_ns)
{
    struct log_line line;
    enum log_level level = level_of(exchange->status);
    if (!log_enabled(level))
        return;
    log_begin(&line, level, "request");
    log_text(&line, "client", exchange->client);
    log_text(&line, "method", exchange->method_text);
    log_text(&line, "path", exchange->path);
    log_number(&line, "status", (uint64_t)exchange->status);
    log_milliseconds(&line, "ms", duration_ns);
    log_number(&line, "in", exchange->body_length);
    log_number(&line, "out", exchange->reply_length);
    if (exchange->model) {
        log_text(&line, "model", exchange->model->name);
        log_text(&line, "version", exchange->model->version);
    }
    if (exchange->log_rows)
        log_number(&line, "rows", exchange->log_rows);
    if (exchange->error_text)
        log_text(&line, "error", exchange->error_text);
    log_end(&line);
}

/* Inference requests count at their model; other requests only when they failed. */
static void count_exchange(const struct exchange *exchange, uint64_t duration_ns,
                           struct totals *totals, size_t loop)
{
    const char *protocol = exchange->log_protocol ? exchange->log_protocol : "";
    if (exchange->log_protocol && exchange->model) {
        stats_add_request(&exchange->model->stats->loop[loop], protocol, exchange->status,
                          (double)duration_ns / 1e9);
    } else if (exchange->log_protocol || exchange->status >= 400) {
        struct loop_totals *own = &totals->loop[loop];
        uv_mutex_lock(&own->mutex);
        request_counts_add(&own->other_requests, protocol, exchange->status, 1);
        uv_mutex_unlock(&own->mutex);
    }
}

void access_log_finished(const struct exchange *exchange, uint64_t duration_ns,
                         struct totals *totals, size_t loop)
{
    count_exchange(exchange, duration_ns, totals, loop);
    log_exchange(exchange, duration_ns);
    model_release(exchange->model);
}

void access_log_lost(const struct exchange *exchange)
{
    struct log_line line;
    log_begin(&line, LOG_ERROR, "request_lost");
    log_text(&line, "method", exchange->method_text);
    log_text(&line, "path", exchange->path);
    log_milliseconds(&line, "ms", uv_hrtime() - exchange->received_ns);
    if (exchange->log_rows)
        log_number(&line, "rows", exchange->log_rows);
    log_end(&line);
}

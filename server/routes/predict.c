/* Inference requests: decode -> submit -> (wait) -> encode. A job has one exit, predict_finished().
 * Loop thread only. */
#include "server/routes/predict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/intervention.h"
#include "core/memory.h"
#include "core/text.h"
#include "server/routes/decode.h"
#include "server/routes/request_id.h"
#include "server/routes/what_if.h"
#include "server/statistics/attribution.h"
#include "server/statistics/judgement.h"

/* Deadlines are kept this exactly; a timer per job would cost more than it saves. */
enum { DEADLINE_TICK_MS = 10 };

static void job_free(struct job *job)
{
    infer_request_close(&job->request);
    moed_intervention_free(job->asked);
    quarantined_release(job->quarantined);
    free(job->values);
    free(job->results);
    free(job->outputs);
    free(job->routing_experts);
    free(job->routing_weights);
    free(job->routing_probabilities);
    free(job->first);
    model_release(job->model);
    free(job);
}

static void reject(struct job *job, enum reject_reason reason)
{
    stats_add_rejection(&job->model->stats->loop[job->predict->lanes->options.loop], reason);
}

static int encode(const struct job *job, struct buffer *body, size_t *json_length,
                  struct error *err)
{
    const struct infer_result result = {
        .outputs = (const float *const *)job->outputs,
        .routing_experts = (const int32_t *const *)job->routing_experts,
        .routing_weights = (const float *const *)job->routing_weights,
        .routing_probabilities = (const float *const *)job->routing_probabilities,
    };
    return job->protocol->encode(&job->request, &result, body, json_length, err);
}

static void answer(struct job *job, size_t max_response_bytes)
{
    struct exchange *exchange = job->exchange;
    struct buffer body;
    size_t json_length = 0;
    uint64_t began = uv_hrtime();
    buffer_init(&body, max_response_bytes);
    exchange->log_queue_ns = job->queue_ns ? job->queue_ns : began - job->submitted_ns;
    exchange->log_compute_ns = job->compute_ns;
    bool encoded =
        job->error.code == ERROR_NONE && encode(job, &body, &json_length, &job->error) == 0;
    exchange->log_encode_ns = uv_hrtime() - began;
    if (encoded) {
        if (json_length > 0) {
            char text[24];
            snprintf(text, sizeof text, "%zu", json_length);
            exchange_header(exchange, "Inference-Header-Content-Length", text);
        }
        exchange_reply(exchange, 200, json_length ? "application/octet-stream" : NULL, &body);
    } else {
        exchange_reply_error(exchange, &job->error);
    }
    buffer_close(&body);
}

static void disown(struct job *job)
{
    TAILQ_REMOVE(&job->predict->jobs, job, link);
    job->exchange->on_disconnect = NULL;
    job->exchange->owner = NULL;
}

/* Every job that was accepted ends here. */
void predict_finished(struct job *job)
{
    struct predict *predict = job->predict;
    disown(job);
    if (job->error.code == ERROR_NONE)
        judge_job(job, predict->lanes->options.loop);
    answer(job, predict->limits.max_response_bytes);
    job_free(job);
}

static void on_disconnect(struct exchange *exchange)
{
    struct job *job = exchange->owner;
    reject(job, REJECT_DISCONNECTED);
    error_set(&job->error, ERROR_DISCONNECTED, "the client went away");
    once_cancel(job->lane, job);
}

static void on_deadlines(uv_timer_t *timer)
{
    struct predict *predict = timer->data;
    uint64_t now = uv_hrtime();
    for (struct job *job = TAILQ_FIRST(&predict->jobs), *next; job; job = next) {
        next = TAILQ_NEXT(job, link);
        /* Rows that are being computed are done soon: their job is answered. */
        if (job->deadline_ns > now || job->rows_waiting == 0)
            continue;
        reject(job, REJECT_DEADLINE);
        error_set(&job->error, ERROR_DEADLINE,
                  "the request was not computed within %.0f ms of its arrival",
                  (double)(job->deadline_ns - job->exchange->received_ns) / 1e6);
        once_cancel(job->lane, job);
    }
    if (TAILQ_EMPTY(&predict->jobs))
        uv_timer_stop(timer);
}

/* There are labels, or there may come some by the request's id. */
static bool may_be_judged(const struct job *job)
{
    return job->counted && !job->asked && job->model->class_output >= 0 &&
           job->model->info->gate_count > 0 && (job->request.labels || job->request.id);
}

static bool wants_probabilities(const struct infer_request *request, size_t gate)
{
    bool wanted = request->probabilities;
    for (size_t i = 0; i < request->output_count; i++)
        wanted |= request->outputs[i].source == INFER_ROUTING_PROBABILITIES &&
                  request->outputs[i].index == gate;
    return wanted;
}

/* Of a gate's probabilities for all rows; 0: nobody asked. */
static size_t probability_numbers(const struct job *job, size_t gate)
{
    const struct moed_gate_info *info = &job->model->info->gates[gate];
    return wants_probabilities(&job->request, gate)
               ? job->request.rows * info->items_per_row * info->experts
               : 0;
}

/* From `next` on; returns what comes behind. */
static float *place_routing(struct job *job, float *next)
{
    const struct moed_model_info *info = job->model->info;
    job->routing_experts = xcalloc(info->gate_count, sizeof *job->routing_experts);
    job->routing_weights = xcalloc(info->gate_count, sizeof *job->routing_weights);
    job->routing_probabilities = xcalloc(info->gate_count, sizeof *job->routing_probabilities);
    for (size_t i = 0; job->wants_routing && i < info->gate_count; i++) {
        size_t count = job->request.rows * info->gates[i].items_per_row * info->gates[i].top_k;
        job->routing_experts[i] = (int32_t *)next;
        job->routing_weights[i] = next + count;
        next += 2 * count;
        job->routing_probabilities[i] = probability_numbers(job, i) > 0 ? next : NULL;
        next += probability_numbers(job, i);
    }
    return next;
}

/* One block for the results of all rows. The client decides its size, so it may not be had. */
static int allocate_results(struct job *job, struct error *err)
{
    const struct moed_model_info *info = job->model->info;
    size_t rows = job->request.rows;
    size_t numbers = 0;
    for (size_t i = 0; i < info->output_count; i++)
        numbers += rows * info->outputs[i].elements;
    for (size_t i = 0; job->wants_routing && i < info->gate_count; i++)
        numbers += 2 * rows * info->gates[i].items_per_row * info->gates[i].top_k +
                   probability_numbers(job, i);
    for (size_t i = 0; may_be_judged(job) && i < info->gate_count; i++)
        numbers += rows * info->gates[i].items_per_row;
    /* int32 and float share the block: both have four bytes. */
    float *next = job->results = malloc(numbers * sizeof(float));
    if (!next)
        return error_set(err, ERROR_UNAVAILABLE,
                         "no memory for the answer to %zu row%s; come back later or send fewer",
                         rows, text_s(rows));
    job->outputs = xcalloc(info->output_count, sizeof *job->outputs);
    for (size_t i = 0; i < info->output_count; i++) {
        job->outputs[i] = next;
        next += rows * info->outputs[i].elements;
    }
    next = place_routing(job, next);
    if (may_be_judged(job))
        job->first = xcalloc(info->gate_count + 1, sizeof *job->first); /* no array of 0 */
    for (size_t i = 0; job->first && i < info->gate_count; i++) {
        job->first[i] = (int32_t *)next;
        next += rows * info->gates[i].items_per_row;
    }
    return 0;
}

static bool wants_routing(const struct infer_request *request)
{
    bool wanted = request->routing;
    for (size_t i = 0; i < request->output_count; i++)
        wanted |= request->outputs[i].source != INFER_OUTPUT;
    return wanted;
}

/* The client's own: of its request, or of the call that carries it. 0: none. */
static uint64_t asked_timeout_us(const struct job *job)
{
    uint64_t of_request = job->request.timeout_us, of_call = job->exchange->timeout_us;
    return of_call > 0 && (of_request == 0 || of_call < of_request) ? of_call : of_request;
}

static void set_deadline(const struct predict *predict, struct job *job)
{
    uint64_t own_ms = job->model->limits.queue_timeout_ms;
    uint64_t timeout_ns = own_ms == SERVING_UNSET ? predict->queue_timeout_ns : own_ms * 1000000;
    uint64_t asked_us = asked_timeout_us(job);
    if (asked_us > 0 && asked_us < timeout_ns / 1000)
        timeout_ns = asked_us * 1000;
    job->deadline_ns = job->exchange->received_ns + timeout_ns;
}

static void own(struct job *job)
{
    job->exchange->owner = job;
    job->exchange->on_disconnect = on_disconnect;
    TAILQ_INSERT_TAIL(&job->predict->jobs, job, link);
}

static int submit(struct predict *predict, struct job *job, struct error *err)
{
    if (attribute_job(job, err) != 0 || what_if(job, err) != 0)
        return -1;
    job->exchange->log_rows = job->request.rows;
    job->wants_routing = wants_routing(&job->request);
    if (allocate_results(job, err) != 0)
        return -1;
    job->lane = lanes_of(predict->lanes, job->model, err);
    if (!job->lane)
        return -1;
    set_deadline(predict, job);
    own(job);
    if (once_submit(job->lane, job, err) == 0)
        return 0; /* a small job is answered, and gone, by now */
    disown(job);
    return -1;
}

static enum reject_reason reason_of(enum error_code code)
{
    return code == ERROR_OVERLOADED     ? REJECT_QUEUE_FULL
           : code == ERROR_DISCONNECTED ? REJECT_DISCONNECTED
           : code == ERROR_DEADLINE     ? REJECT_DEADLINE
                                        : REJECT_INVALID;
}

static void on_decoded(struct job *job, struct error *err)
{
    struct predict *predict = job->predict;
    job->exchange->log_decode_ns = uv_hrtime() - job->decoding_since_ns;
    request_id_set(job->exchange, job->request.id);
    if (err->code != ERROR_NONE || submit(predict, job, err) != 0) {
        reject(job, reason_of(err->code));
        if (err->code == ERROR_OVERLOADED && job->lane)
            job->exchange->retry_after_s = once_retry_after(job->lane);
        exchange_reply_error(job->exchange, err);
        job_free(job);
        return;
    }
    if (!TAILQ_EMPTY(&predict->jobs) && !uv_is_active((uv_handle_t *)&predict->deadlines))
        uv_timer_start(&predict->deadlines, on_deadlines, DEADLINE_TICK_MS, DEADLINE_TICK_MS);
}

void predict_request(struct predict *predict, struct model *model, struct exchange *exchange,
                     const struct protocol *protocol)
{
    struct job *job = xcalloc(1, sizeof *job);
    job->model = model_hold(model);
    job->exchange = exchange;
    job->predict = predict;
    job->protocol = protocol;
    job->decoding_since_ns = uv_hrtime();
    decode_job(predict->deadlines.loop, job, &predict->limits, on_decoded);
}

void predict_init(struct predict *predict, uv_loop_t *loop, struct lanes *lanes,
                  const struct infer_limits *limits, uint64_t queue_timeout_ms)
{
    *predict = (struct predict){
        .lanes = lanes, .limits = *limits, .queue_timeout_ns = queue_timeout_ms * 1000000};
    TAILQ_INIT(&predict->jobs);
    uv_timer_init(loop, &predict->deadlines);
    predict->deadlines.data = predict;
    uv_unref((uv_handle_t *)&predict->deadlines);
}

void predict_close(struct predict *predict)
{
    uv_close((uv_handle_t *)&predict->deadlines, NULL);
}

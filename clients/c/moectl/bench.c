/* `moectl bench`: load on a model, and how long answers took. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/inputs.h"
#include "clients/c/moectl/load.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"

enum {
    /* Made-up requests differ, or a cache on the way would answer them. */
    MADE_CALLS = 16,
    MOST_CALLS = 1024,
    DEFAULT_OPEN_CONNECTIONS = 64,
};

static const double DEFAULT_SECONDS = 10;

static const struct {
    const char *key;
    double part;
} PERCENTILES[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99.9", 0.999}};

/* ---- requests ---- */

struct calls {
    struct moed_client_call *list;
    size_t count, rows; /* rows in each */
};

static void calls_close(struct calls *calls)
{
    for (size_t i = 0; i < calls->count; i++)
        moed_client_call_close(&calls->list[i]);
    free(calls->list);
}

/* Requests of `rows` rows each, from the first on; what is left at the end and fills none is left
 * out. */
static int make_calls(const struct settings *settings, const struct inputs *inputs,
                      struct calls *calls, struct moed_client_error *err)
{
    size_t most = inputs->rows / calls->rows;
    if (most == 0)
        return fail_with(err, "too few rows for requests of %zu: %zu", calls->rows, inputs->rows);
    most = most < MOST_CALLS ? most : MOST_CALLS;
    calls->list = xcalloc(most, sizeof *calls->list);
    struct moed_client_tensor *part = xcalloc(inputs->count, sizeof *part);
    const struct moed_client_request request = {.model = settings->operands[0],
                                                .version = settings->version,
                                                .inputs = part,
                                                .input_count = inputs->count};
    int result = 0;
    while (result == 0 && calls->count < most) {
        inputs_slice(inputs, calls->count * calls->rows, calls->rows, part);
        result = moed_client_encode(&request, &calls->list[calls->count], err);
        calls->count += result == 0;
    }
    free(part);
    return result;
}

static int prepare(const struct settings *settings, struct calls *calls,
                   struct moed_client_error *err)
{
    struct moed_client *client = connect_client(settings, err);
    const struct moed_client_model *model =
        client ? moed_client_model(client, settings->operands[0], settings->version, err) : NULL;
    struct inputs inputs = {0};
    int result = -1;
    calls->rows = settings->rows ? settings->rows : 1;
    if (model && settings->input)
        result = inputs_read(&inputs, model, settings->input, err);
    else if (model)
        result = inputs_make(&inputs, model, calls->rows * MADE_CALLS, err);
    if (result == 0)
        result = make_calls(settings, &inputs, calls, err);
    inputs_close(&inputs);
    moed_client_model_free(model);
    moed_client_free(client);
    return result;
}

static struct load_plan plan_of(const struct settings *settings, const struct calls *calls)
{
    struct load_plan plan = {
        .calls = calls->list,
        .call_count = calls->count,
        .connections = settings->rate > 0 ? DEFAULT_OPEN_CONNECTIONS : 1,
        .rate = settings->rate,
        .duration = settings->duration,
        .requests = settings->requests,
    };
    if (settings->concurrency)
        plan.connections = settings->concurrency;
    if (plan.requests && plan.requests < plan.connections)
        plan.connections = plan.requests;
    if (!(plan.duration > 0) && plan.requests == 0)
        plan.duration = DEFAULT_SECONDS;
    return plan;
}

/* ---- the result ---- */

static double per_second(const struct load_result *result)
{
    return result->seconds > 0 ? (double)result->latency.count / result->seconds : 0;
}

static void print_latency(const char *title, const struct latency *latency)
{
    printf("%-10s", title);
    for (size_t i = 0; i < LENGTH(PERCENTILES); i++)
        printf("%10.3f", latency_percentile(latency, PERCENTILES[i].part) / 1e6);
    printf("%10.3f%10.3f\n", (double)latency->most / 1e6, latency_mean(latency) / 1e6);
}

static void print_errors(const struct load_result *result)
{
    for (size_t i = 0; i < result->error_kinds; i++) {
        char *text = printable(result->errors[i].text);
        printf("  %llu time%s: %s\n", (unsigned long long)result->errors[i].count,
               ending(result->errors[i].count), text);
        free(text);
    }
}

static void print_result(const struct settings *settings, const struct load_plan *plan,
                         const struct load_result *result, size_t rows)
{
    char *model = printable(settings->operands[0]);
    if (plan->rate > 0)
        printf("%s: %g requests/s on at most %zu connection%s", model, plan->rate,
               plan->connections, plan->connections == 1 ? "" : "s");
    else
        printf("%s: %zu connection%s, one request at a time on each", model, plan->connections,
               plan->connections == 1 ? "" : "s");
    free(model);
    printf(", %zu row%s each%s\n\n", rows, rows == 1 ? "" : "s",
           result->interrupted ? " (interrupted)" : "");
    printf("%llu answer%s in %.2f s: %.1f requests/s, %.1f rows/s; %llu failed\n",
           (unsigned long long)result->latency.count, ending(result->latency.count),
           result->seconds, per_second(result), per_second(result) * (double)rows,
           (unsigned long long)result->failed);
    print_errors(result);
    printf("\n%-10s", "ms");
    for (size_t i = 0; i < LENGTH(PERCENTILES); i++)
        printf("%10s", PERCENTILES[i].key);
    printf("%10s%10s\n", "max", "mean");
    print_latency("latency", &result->latency);
    if (plan->rate > 0)
        print_latency("service", &result->service);
}

static json_t *json_latency(const struct latency *latency)
{
    json_t *object = json_object();
    for (size_t i = 0; i < LENGTH(PERCENTILES); i++)
        json_object_set_new(object, PERCENTILES[i].key,
                            json_real(latency_percentile(latency, PERCENTILES[i].part) / 1e6));
    json_object_set_new(object, "min", json_real((double)latency->least / 1e6));
    json_object_set_new(object, "max", json_real((double)latency->most / 1e6));
    json_object_set_new(object, "mean", json_real(latency_mean(latency) / 1e6));
    return object;
}

static json_t *json_errors(const struct load_result *result)
{
    json_t *list = json_array();
    for (size_t i = 0; i < result->error_kinds; i++)
        json_array_append_new(list, json_pack("{s:i, s:I, s:s}", "status", result->errors[i].status,
                                              "count", (json_int_t)result->errors[i].count, "text",
                                              result->errors[i].text));
    return list;
}

static void show_json(const struct settings *settings, const struct load_plan *plan,
                      const struct load_result *result, size_t rows)
{
    char *model = printable(settings->operands[0]);
    json_t *root = json_pack(
        "{s:s, s:I, s:I, s:f, s:f, s:I, s:I, s:f, s:f, s:b, s:o, s:o, s:o}", "model", model,
        "connections", (json_int_t)plan->connections, "rows_per_request", (json_int_t)rows, "rate",
        plan->rate, "seconds", result->seconds, "answers", (json_int_t)result->latency.count,
        "failed", (json_int_t)result->failed, "requests_per_second", per_second(result),
        "rows_per_second", per_second(result) * (double)rows, "interrupted", result->interrupted,
        "latency_ms", json_latency(&result->latency), "service_ms", json_latency(&result->service),
        "errors", json_errors(result));
    print_json(stdout, root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    free(model);
}

/* Failed requests are a result; that there is no other is a failure. */
static int report(const struct settings *settings, const struct load_plan *plan,
                  const struct load_result *result, size_t rows, struct moed_client_error *err)
{
    if (settings->json)
        show_json(settings, plan, result, rows);
    else
        print_result(settings, plan, result, rows);
    if (result->latency.count > 0 || result->interrupted)
        return EXIT_SUCCESS;
    return fail_with(err, "no request was answered: %s",
                     result->error_kinds ? result->errors[0].text : "none was sent");
}

int run_bench(const struct settings *settings, struct moed_client_error *err)
{
    struct calls calls = {0};
    int status = prepare(settings, &calls, err);
    if (status == 0) {
        struct load_plan plan = plan_of(settings, &calls);
        struct load_result *result = load_run(settings, &plan, err);
        status = result ? report(settings, &plan, result, calls.rows, err) : -1;
        free(result);
    }
    calls_close(&calls);
    return status;
}

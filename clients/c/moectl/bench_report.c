/* The result of `moectl bench`, as a table and as JSON. */
#include <jansson.h>
#include <stdlib.h>

#include "clients/c/moectl/bench.h"
#include "clients/c/moectl/print_json.h"

/* All fit into 80 columns. */
enum { TITLE_COLUMNS = 14, FIGURE_COLUMNS = 9 };

static const struct {
    const char *key;
    double part;
} PERCENTILES[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99.9", 0.999}};

/* ---- the table ---- */

static double per_second(const struct load_result *result, uint64_t count)
{
    return result->seconds > 0 ? (double)count / result->seconds : 0;
}

/* A dash where nothing was measured. */
static void print_figure(const struct latency *latency, double nanoseconds)
{
    if (latency->count > 0)
        printf("%*.3f", FIGURE_COLUMNS, nanoseconds / 1e6);
    else
        printf("%*s", FIGURE_COLUMNS, "-");
}

static void print_latency(const char *title, const struct latency *latency)
{
    printf("%-*s", TITLE_COLUMNS, title);
    for (size_t i = 0; i < LENGTH(PERCENTILES); i++)
        print_figure(latency, latency_percentile(latency, PERCENTILES[i].part));
    print_figure(latency, (double)latency->most);
    print_figure(latency, latency_mean(latency));
    putchar('\n');
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

/* "16 rows each", "256 tokens of prompt and at most 128 of answer each" */
static void print_load(const struct bench *bench)
{
    const struct bench_prompts *prompts = bench->prompts;
    if (bench->rows)
        printf("%zu row%s each", bench->rows->rows, ending(bench->rows->rows));
    else if (prompts->list)
        printf("%zu given prompt%s in turn, at most %llu token%s of answer each", prompts->count,
               ending(prompts->count), (unsigned long long)prompts->max_tokens,
               ending(prompts->max_tokens));
    else
        printf("%llu token%s of prompt and at most %llu of answer each",
               (unsigned long long)prompts->tokens, ending(prompts->tokens),
               (unsigned long long)prompts->max_tokens);
}

static void print_head(const struct bench *bench)
{
    const struct load_plan *plan = bench->plan;
    char *model = printable(bench->model);
    if (plan->rate > 0)
        printf("%s: %g requests/s on at most %zu connection%s,%c", model, plan->rate,
               plan->connections, ending(plan->connections), bench->rows ? ' ' : '\n');
    else
        printf("%s: %zu connection%s, one request at a time on each,%c", model, plan->connections,
               ending(plan->connections), bench->rows ? ' ' : '\n');
    free(model);
    print_load(bench);
    printf("%s\n\n", bench->result->interrupted ? " (interrupted)" : "");
}

static void print_rates(const struct bench *bench)
{
    const struct load_result *result = bench->result;
    const uint64_t answers = result->latency.count;
    printf("%llu answer%s in %.2f s: %.1f requests/s", (unsigned long long)answers, ending(answers),
           result->seconds, per_second(result, answers));
    if (bench->rows)
        printf(", %.1f rows/s", per_second(result, answers * bench->rows->rows));
    printf("; %llu failed\n", (unsigned long long)result->failed);
    print_errors(result);
    if (bench->prompts)
        printf("%.1f tokens/s of answers, %.1f of prompts\n",
               per_second(result, result->answer_tokens),
               per_second(result, result->prompt_tokens));
    if (result->cached_tokens > 0)
        printf("%.1f %% of the tokens of prompts were in the server's cache\n",
               100 * (double)result->cached_tokens / (double)result->prompt_tokens);
}

void bench_print(const struct bench *bench)
{
    const struct load_result *result = bench->result;
    print_head(bench);
    print_rates(bench);
    printf("\n%-*s", TITLE_COLUMNS, "ms");
    for (size_t i = 0; i < LENGTH(PERCENTILES); i++)
        printf("%*s", FIGURE_COLUMNS, PERCENTILES[i].key);
    printf("%*s%*s\n", FIGURE_COLUMNS, "max", FIGURE_COLUMNS, "mean");
    print_latency("latency", &result->latency);
    if (bench->plan->rate > 0)
        print_latency("service", &result->service);
    if (bench->prompts) {
        print_latency("first token", &result->first);
        print_latency("between tokens", &result->between);
    }
}

/* ---- JSON ---- */

static json_t *json_figure(const struct latency *latency, double nanoseconds)
{
    return latency->count > 0 ? json_real(nanoseconds / 1e6) : json_null();
}

static json_t *json_latency(const struct latency *latency)
{
    json_t *object = json_object();
    for (size_t i = 0; i < LENGTH(PERCENTILES); i++)
        json_object_set_new(object, PERCENTILES[i].key,
                            json_figure(latency, latency_percentile(latency, PERCENTILES[i].part)));
    json_object_set_new(object, "min", json_figure(latency, (double)latency->least));
    json_object_set_new(object, "max", json_figure(latency, (double)latency->most));
    json_object_set_new(object, "mean", json_figure(latency, latency_mean(latency)));
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

/* What there is of one kind of models only. */
static void add_kind(json_t *root, const struct bench *bench)
{
    const struct load_result *result = bench->result;
    json_t *more = NULL;
    if (bench->rows)
        more = json_pack("{s:I, s:f}", "rows_per_request", (json_int_t)bench->rows->rows,
                         "rows_per_second",
                         per_second(result, result->latency.count * bench->rows->rows));
    else
        more = json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:o}", "seed",
            (json_int_t)bench->prompts->seed, "max_tokens", (json_int_t)bench->prompts->max_tokens,
            "prompt_tokens", (json_int_t)result->prompt_tokens, "cached_tokens",
            (json_int_t)result->cached_tokens, "answer_tokens", (json_int_t)result->answer_tokens,
            "answer_tokens_per_second", per_second(result, result->answer_tokens),
            "prompt_tokens_per_second", per_second(result, result->prompt_tokens), "first_token_ms",
            json_latency(&result->first), "between_tokens_ms", json_latency(&result->between));
    json_object_update(root, more);
    json_decref(more);
}

void bench_print_json(const struct bench *bench)
{
    const struct load_result *result = bench->result;
    char *model = printable(bench->model);
    json_t *root = json_pack(
        "{s:s, s:I, s:f, s:f, s:I, s:I, s:f, s:b, s:o, s:o, s:o}", "model", model, "connections",
        (json_int_t)bench->plan->connections, "rate", bench->plan->rate, "seconds", result->seconds,
        "answers", (json_int_t)result->latency.count, "failed", (json_int_t)result->failed,
        "requests_per_second", per_second(result, result->latency.count), "interrupted",
        result->interrupted, "latency_ms", json_latency(&result->latency), "service_ms",
        json_latency(&result->service), "errors", json_errors(result));
    add_kind(root, bench);
    print_json(stdout, root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(root);
    free(model);
}

/* `moectl bench`: load on a model, and how long answers took. */
#include "clients/c/moectl/bench.h"

#include <jansson.h>
#include <stdlib.h>

#include "clients/c/moectl/listing.h"
#include "clients/c/moectl/run.h"

enum { DEFAULT_OPEN_CONNECTIONS = 64 };

static const double DEFAULT_SECONDS = 10;

/* ---- what the model is ---- */

/* One that takes tokens: a language model, or one that makes vectors of texts. */
static bool takes_tokens(const struct moed_client_model *model)
{
    const struct moed_client_tensor *input = model->inputs;
    return model->input_count == 1 && input->rank == 1 && input->categories > 0;
}

/* Asks what the server says of it; 0: nothing, or it has no end. */
static int find_context(struct moed_client *client, const char *model, uint64_t *tokens,
                        struct moed_client_error *err)
{
    json_t *listing = fetch_listing(client, err);
    json_t *entry = listing_entry(listing, model);
    const bool generates = listing_does(entry, "completion");
    const json_int_t context = json_integer_value(json_object_get(entry, "max_model_len"));
    *tokens = context > 0 ? (uint64_t)context : 0;
    json_decref(listing);
    if (listing && !generates)
        fail_with(err, "'%.100s' generates nothing: only models of rows and of text are measured",
                  model);
    return generates ? 0 : -1;
}

/* An option for the other kind of models would be without effect. */
static int check_options(const struct settings *settings, bool speaks,
                         struct moed_client_error *err)
{
    const char *wrong = NULL;
    if (speaks && settings->rows)
        wrong = "rows";
    else if (speaks && settings->version)
        wrong = "version";
    else if (!speaks && settings->prompt_tokens)
        wrong = "prompt-tokens";
    else if (!speaks && settings->max_tokens)
        wrong = "max-tokens";
    else if (!speaks && settings->seed)
        wrong = "seed";
    return wrong ? fail_with(err, "'%.100s' is %s model: --%s is not for it", settings->operands[0],
                             speaks ? "a language" : "no language", wrong)
                 : 0;
}

/* ---- the load ---- */

static struct load_plan plan_of(const struct settings *settings)
{
    struct load_plan plan = {
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

/* Failed requests are a result; that there is no other is a failure. */
static int report(const struct settings *settings, const struct bench *bench,
                  struct moed_client_error *err)
{
    const struct load_result *result = bench->result;
    if (settings->json)
        bench_print_json(bench);
    else
        bench_print(bench);
    if (result->latency.count > 0 || result->interrupted)
        return EXIT_SUCCESS;
    return fail_with(err, "no request was answered: %s",
                     result->error_kinds ? result->errors[0].text : "none was sent");
}

static int measure(const struct settings *settings, load_send *send, const void *work,
                   struct bench *bench, struct moed_client_error *err)
{
    struct load_plan plan = plan_of(settings);
    plan.send = send;
    plan.work = work;
    struct load_result *result = load_run(settings, &plan, err);
    bench->plan = &plan;
    bench->result = result;
    const int status = result ? report(settings, bench, err) : -1;
    free(result);
    return status;
}

static int bench_text(const struct settings *settings, struct moed_client *client,
                      const struct moed_client_model *model, struct moed_client_error *err)
{
    uint64_t context = 0;
    struct bench_prompts work = {0};
    struct bench bench = {.model = settings->operands[0], .prompts = &work};
    int status = find_context(client, bench.model, &context, err);
    if (status == 0)
        status = bench_prompts_make(&work, settings, model, err);
    if (status == 0 && context > 0 && !work.list && work.tokens + work.max_tokens > context)
        status =
            fail_with(err,
                      "'%.100s' has room for %llu token%s, and not for %llu of prompt and %llu "
                      "of answer (--prompt-tokens, --max-tokens)",
                      bench.model, (unsigned long long)context, ending(context),
                      (unsigned long long)work.tokens, (unsigned long long)work.max_tokens);
    if (status == 0)
        status = measure(settings, bench_prompts_send, &work, &bench, err);
    bench_prompts_close(&work);
    return status;
}

static int bench_rows(const struct settings *settings, const struct moed_client_model *model,
                      struct moed_client_error *err)
{
    struct bench_rows work = {0};
    struct bench bench = {.model = settings->operands[0], .rows = &work};
    int status = bench_rows_make(&work, settings, model, err);
    if (status == 0)
        status = measure(settings, bench_rows_send, &work, &bench, err);
    bench_rows_close(&work);
    return status;
}

int run_bench(const struct settings *settings, struct moed_client_error *err)
{
    struct moed_client *client = connect_client(settings, err);
    const struct moed_client_model *model =
        client ? moed_client_model(client, settings->operands[0], settings->version, err) : NULL;
    const bool speaks = model && takes_tokens(model);
    int status = model ? check_options(settings, speaks, err) : -1;
    if (status == 0)
        status =
            speaks ? bench_text(settings, client, model, err) : bench_rows(settings, model, err);
    moed_client_model_free(model);
    moed_client_free(client);
    return status;
}

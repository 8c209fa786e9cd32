/* Rows that `moectl bench` sends. */
#include <stdlib.h>

#include "clients/c/moectl/bench.h"
#include "clients/c/moectl/inputs.h"

enum {
    /* Made-up requests differ, or a cache on the way would answer them. */
    MADE_CALLS = 16,
    MOST_CALLS = 1024,
};

void bench_rows_close(struct bench_rows *work)
{
    for (size_t i = 0; i < work->count; i++)
        moed_client_call_close(&work->calls[i]);
    free(work->calls);
}

/* Requests of `rows` rows each, from the first on; what is left at the end and fills none is left
 * out. */
static int make_calls(const struct settings *settings, const struct inputs *inputs,
                      struct bench_rows *work, struct moed_client_error *err)
{
    size_t most = inputs->rows / work->rows;
    if (most == 0)
        return fail_with(err, "too few rows for requests of %zu: %zu", work->rows, inputs->rows);
    most = most < MOST_CALLS ? most : MOST_CALLS;
    work->calls = xcalloc(most, sizeof *work->calls);
    struct moed_client_tensor *part = xcalloc(inputs->count, sizeof *part);
    const struct moed_client_request request = {.model = settings->operands[0],
                                                .version = settings->version,
                                                .inputs = part,
                                                .input_count = inputs->count};
    int result = 0;
    while (result == 0 && work->count < most) {
        inputs_slice(inputs, work->count * work->rows, work->rows, part);
        result = moed_client_encode(&request, &work->calls[work->count], err);
        work->count += result == 0;
    }
    free(part);
    return result;
}

int bench_rows_make(struct bench_rows *work, const struct settings *settings,
                    const struct moed_client_model *model, struct moed_client_error *err)
{
    struct inputs inputs = {0};
    work->rows = settings->rows ? settings->rows : 1;
    int result = settings->input ? inputs_read(&inputs, model, settings->input, err)
                                 : inputs_make(&inputs, model, work->rows * MADE_CALLS, err);
    if (result == 0)
        result = make_calls(settings, &inputs, work, err);
    inputs_close(&inputs);
    return result;
}

int bench_rows_send(const void *context, struct moed_client *client, const struct load_turn *turn,
                    struct load_result *result, struct moed_client_error *err)
{
    const struct bench_rows *work = context;
    struct moed_client_answer answer;
    (void)result;
    if (moed_client_exchange(client, &work->calls[turn->number % work->count], &answer, err) != 0)
        return -1;
    moed_client_answer_close(&answer);
    return 0;
}

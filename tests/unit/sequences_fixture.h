/* A lane of sequences with a small causal model, without exchanges: what its sequences are told is
 * kept here. */
#ifndef TEST_SEQUENCES_FIXTURE_H
#define TEST_SEQUENCES_FIXTURE_H

#include "causal_toy.h"
#include "patience.h"
#include "server/compute/sequences.h"
#include "server/log.h"

enum { MOST = 24, CONTEXT_POSITIONS = 4096 };

static uv_loop_t loop;
static struct scheduler scheduler;
static struct model *model;
static struct sequences *lane;
static struct sequences_options options;

/* ---- asking ---- */

struct asked {
    struct sequence sequence; /* first */
    size_t tokens;            /* told so far */
    size_t last_after;        /* tells the lane that it was the last token; 0: never */
    size_t cancel_after;      /* gives up on `whom` from within on_token */
    struct asked *whom;
    bool ended;
};

static struct asked asked[MOST];
static size_t asked_count, ended_count;

static struct asked *asked_of(struct sequence *sequence)
{
    return (struct asked *)(void *)sequence;
}

static bool on_token(struct sequence *sequence)
{
    struct asked *one = asked_of(sequence);
    ck_assert(!one->ended);
    one->tokens++;
    ck_assert_uint_eq(sequence->count, sequence->prompt + one->tokens);
    if (one->tokens == one->cancel_after && !one->whom->ended)
        sequences_cancel(lane, &one->whom->sequence);
    return one->tokens != one->last_after;
}

static void on_end(struct sequence *sequence)
{
    ck_assert(!asked_of(sequence)->ended);
    asked_of(sequence)->ended = true;
    ended_count++;
}

static const struct sequence_calls calls = {on_token, on_end};

/* A prompt that depends on the seed, as its text does. */
static struct asked *prepare(size_t prompt, size_t wanted, uint32_t seed)
{
    struct asked *one = &asked[asked_count++];
    struct sequence *sequence = &one->sequence;
    ck_assert_uint_le(asked_count, MOST);
    *one = (struct asked){.sequence = {.calls = &calls,
                                       .tokens = xcalloc(prompt + wanted, sizeof(int32_t)),
                                       .prompt = prompt,
                                       .limit = prompt + wanted,
                                       .priority = PRIORITY_NORMAL,
                                       .sampling = SAMPLER_DEFAULTS,
                                       .counted = true}};
    sequence->queued = prompt;
    sequence->sampling.seed = seed;
    sequence->sampling.presence_penalty = 0.5f;
    for (size_t i = 0; i < prompt; i++)
        sequence->tokens[i] = (int32_t)(next_random(&seed) % TOKENS);
    return one;
}

static int check(const struct asked *one, struct error *err)
{
    const struct sequence *sequence = &one->sequence;
    if (sequences_check(lane, sequence->prompt, sequence->limit, err) != 0)
        return -1;
    return sequences_check_room(lane, 1, sequence->prompt, err);
}

static struct asked *submit(struct asked *one)
{
    struct error err = ERROR_INIT;
    ck_assert_msg(check(one, &err) == 0, "%s", err.text);
    sequences_submit(lane, &one->sequence);
    return one;
}

static struct asked *ask(size_t prompt, size_t wanted, uint32_t seed)
{
    return submit(prepare(prompt, wanted, seed));
}

static void refuse(struct asked *one, enum error_code code, const char *part)
{
    struct error err = ERROR_INIT;
    ck_assert_int_eq(check(one, &err), -1);
    ck_assert_int_eq(err.code, code);
    expect_text(err.text, part);
}

/* ---- the lane ---- */

static void start(size_t max_sequences, size_t step_tokens, size_t positions)
{
    struct error err = ERROR_INIT;
    options = (struct sequences_options){
        .max_sequences = max_sequences,
        .step_tokens = step_tokens,
        .cache_bytes = positions * model->info->position_bytes,
        .max_queue_tokens = 400,
        .threads = 2,
    };
    lane = sequences_new(model, &scheduler, &options, &err);
    ck_assert_msg(lane != NULL, "%s", err.text);
}

/* All sequences must be gone. */
static void stop(void)
{
    ck_assert(lane->lane.kind->empty(&lane->lane));
    ck_assert_uint_eq(moed_pages_used(lane->pages), 0);
    while (lane->lane.listed) /* until the scheduler has forgotten it */
        uv_run(&loop, UV_RUN_ONCE);
    lane->lane.kind->free(&lane->lane);
    lane = NULL;
}

static void drop_asked(void)
{
    for (size_t i = 0; i < asked_count; i++)
        sequence_close(&asked[i].sequence, model->info);
    asked_count = ended_count = 0;
}

static void on_alarm(uv_timer_t *timer)
{
    (void)timer;
    ck_abort_msg("%zu of %zu sequences have ended", ended_count, asked_count);
}

static void run_until(size_t count)
{
    uv_timer_t alarm;
    uv_timer_init(&loop, &alarm);
    uv_timer_start(&alarm, on_alarm, PATIENCE_SECONDS * 1000, 0);
    while (ended_count < count)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&alarm, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

/* One step on the calling thread. */
static void step(void)
{
    lane->lane.busy = true;
    lane->lane.kind->begin(&lane->lane, 0);
    lane->lane.kind->run(&lane->lane, NULL);
    lane->lane.busy = false;
    lane->lane.kind->finish(&lane->lane, 1000);
}

static void on_empty(struct lane *of, void *context)
{
    (void)of, (void)context;
}

static void write_toy(const char *directory)
{
    static const char head[] = "{'model_type':'moed','format_version':2";
    char config[sizeof causal_config + 64];
    snprintf(config, sizeof config, "{'model_type':'moed','format_version':3,'context':%d%s",
             CONTEXT_POSITIONS, causal_config + sizeof head - 1);
    struct weights weights = {.count = 0};
    add(&weights, "e", TOKENS, SIZE);
    add(&weights, "a", 3 * SIZE, SIZE);
    add_mixture(&weights, "m");
    add(&weights, "b", 3 * SIZE, SIZE);
    add_mixture(&weights, "n");
    add(&weights, "out", TOKENS, SIZE);
    write_checkpoint(directory, config, weights.tensors, weights.count);
    for (size_t i = 0; i < weights.count; i++)
        free((float *)weights.tensors[i].values);
}

static void begin(void)
{
    struct error err = ERROR_INIT;
    const struct model_options of = {
        .loops = 1, .max_batch_rows = 8, .step_tokens = 8, .threads = 2, .max_tags = 4};
    struct serving serving;
    char *directory = new_directory();
    log_set_level(LOG_ERROR);
    write_toy(directory);
    (void)load; /* the toy's own */
    serving_init(&serving);
    model = model_load(directory, "toy", "1", &of, &serving, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    free(directory);
    uv_loop_init(&loop);
    ck_assert_int_eq(scheduler_init(&scheduler, &loop, 2, on_empty, NULL, &err), 0);
}

static void end(void)
{
    stop();
    drop_asked();
    scheduler_close(&scheduler);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
    ck_assert_uint_eq(model->holders, 1);
    model_release(model);
}

#endif

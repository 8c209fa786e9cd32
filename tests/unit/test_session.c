/* Sequences with memory: a small causal model, run step by step, in chunks and at once, alone and
 * beside others, gives the same bits. */
#include "causal_toy.h"
#include "core/session.h"

/* ---- running ---- */

/* A model's outputs and routing for the tokens of one sequence. */
struct answer {
    float y[LONGEST * TOKENS], weight[GATES][LONGEST * TOP_K];
    int32_t expert[GATES][LONGEST * TOP_K];
};

struct sequence {
    int32_t tokens[LONGEST];
    size_t count, done;
    struct moed_pages *pages;
    struct moed_session *session;
    struct answer answer;
};

static struct sequence *new_sequence(const struct moed_model *model, size_t count, uint32_t seed)
{
    struct sequence *sequence = xcalloc(1, sizeof *sequence);
    sequence->count = count;
    for (size_t i = 0; i < count; i++)
        sequence->tokens[i] = (int32_t)(next_random(&seed) % TOKENS);
    sequence->session = new_session(model, count, &sequence->pages);
    return sequence;
}

static void free_sequence(struct sequence *sequence)
{
    moed_session_free(sequence->session);
    moed_pages_free(sequence->pages);
    free(sequence);
}

/* The engine that a test runs on. */
struct engine {
    const struct moed_model *model;
    struct moed_scratch *scratch;
    struct moed_team *team;
};

static struct engine new_engine(const struct moed_model *model, size_t rows, unsigned threads)
{
    struct engine engine = {.model = model, .scratch = new_scratch(model, rows, threads, NULL)};
    ck_assert_ptr_nonnull(engine.scratch);
    engine.team = threads > 1 ? moed_team_new(threads) : NULL;
    if (engine.team)
        team_fork_from(engine.team, 0);
    return engine;
}

static void free_engine(struct engine *engine)
{
    moed_team_free(engine->team);
    moed_scratch_free(engine->scratch);
}

/* A chunk of one sequence in a batch: its next `rows` tokens. */
struct chunk {
    struct sequence *sequence;
    size_t rows;
};

/* Keeps the results of the last forward pass from row `row` on. */
static void keep(const struct engine *engine, const struct chunk *chunk, size_t row, const float *y)
{
    struct sequence *sequence = chunk->sequence;
    struct answer *answer = &sequence->answer;
    const size_t width = moed_model_info(engine->model)->outputs[0].elements;
    memcpy(answer->y + sequence->done * width, y + row * width, chunk->rows * width * sizeof *y);
    for (size_t gate = 0; gate < moed_model_info(engine->model)->gate_count; gate++) {
        const struct moed_routing *routing = moed_routing(engine->scratch, gate);
        memcpy(answer->expert[gate] + sequence->done * TOP_K, routing->expert + row * TOP_K,
               chunk->rows * TOP_K * sizeof(int32_t));
        memcpy(answer->weight[gate] + sequence->done * TOP_K, routing->weight + row * TOP_K,
               chunk->rows * TOP_K * sizeof(float));
    }
    sequence->done += chunk->rows;
}

static void run_chunks(const struct engine *engine, const struct chunk *chunks, size_t count)
{
    struct moed_span spans[8];
    int32_t tokens[8 * LONGEST];
    static float y[8 * LONGEST * TOKENS];
    size_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        const struct sequence *sequence = chunks[i].sequence;
        spans[i] = (struct moed_span){
            .rows = chunks[i].rows, .position = sequence->done, .session = sequence->session};
        memcpy(tokens + rows, sequence->tokens + sequence->done, chunks[i].rows * sizeof *tokens);
        rows += chunks[i].rows;
    }
    const void *const inputs[] = {tokens};
    float *const outputs[] = {y};
    moed_forward(engine->model, engine->scratch, engine->team,
                 &(struct moed_batch){spans, count, inputs, outputs, NULL});
    for (size_t i = 0, row = 0; i < count; row += chunks[i++].rows)
        keep(engine, &chunks[i], row, y);
}

/* Runs a sequence in chunks of at most `most` tokens. */
static void run_alone(const struct engine *engine, struct sequence *sequence, size_t most)
{
    while (sequence->done < sequence->count) {
        const size_t left = sequence->count - sequence->done;
        run_chunks(engine, &(struct chunk){sequence, left < most ? left : most}, 1);
    }
    ck_assert_uint_eq(moed_session_length(sequence->session), sequence->count);
}

static void start_again(struct sequence *sequence)
{
    moed_session_truncate(sequence->session, 0);
    ck_assert_int_eq(moed_session_reserve(sequence->session, sequence->count), 0);
    memset(&sequence->answer, 0xff, sizeof sequence->answer);
    sequence->done = 0;
}

static void expect_same(const struct sequence *sequence, const struct answer *expected,
                        const char *what)
{
    const struct answer *got = &sequence->answer;
    const size_t pairs = sequence->count * TOP_K;
    ck_assert_msg(memcmp(got->y, expected->y, sequence->count * TOKENS * sizeof(float)) == 0,
                  "%s: outputs differ", what);
    for (size_t gate = 0; gate < GATES; gate++)
        ck_assert_msg(memcmp(got->expert[gate], expected->expert[gate], pairs * 4) == 0 &&
                          memcmp(got->weight[gate], expected->weight[gate], pairs * 4) == 0,
                      "%s: routing differs", what);
}

/* ---- tests ---- */

static const char *const configs[] = {causal_config, decay_config};
static const unsigned thread_counts[] = {1, 2, 4};

START_TEST(steps_chunks_and_at_once_give_the_same_bits)
{
    struct moed_model *model = load(configs[_i]);
    struct sequence *sequence = new_sequence(model, LONGEST, 3);
    struct engine first = new_engine(model, LONGEST, 1);
    memset(&sequence->answer, 0xff, sizeof sequence->answer);
    run_alone(&first, sequence, LONGEST);
    const struct answer at_once = sequence->answer;
    for (size_t i = 0; i < 3; i++) {
        struct engine engine = new_engine(model, LONGEST, thread_counts[i]);
        for (size_t most = 1; most <= LONGEST; most += 1 + most / 3) {
            start_again(sequence);
            run_alone(&engine, sequence, most);
            expect_same(sequence, &at_once, "in chunks");
        }
        free_engine(&engine);
    }
    free_engine(&first);
    free_sequence(sequence);
    moed_model_free(model);
}
END_TEST

/* Chooses some of the unfinished sequences, in random order, each with a chunk. */
static size_t choose_chunks(struct sequence *const *sequences, size_t count, uint32_t *state,
                            struct chunk *chunks)
{
    size_t chosen = 0;
    const size_t first = next_random(state) % count;
    for (size_t i = 0; i < count; i++) {
        struct sequence *sequence = sequences[(first + i) % count];
        const size_t left = sequence->count - sequence->done;
        if (left > 0 && next_random(state) % 3 != 0)
            chunks[chosen++] = (struct chunk){sequence, 1 + next_random(state) % left};
    }
    return chosen;
}

static bool all_done(struct sequence *const *sequences, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++)
        left += sequences[i]->count - sequences[i]->done;
    return left == 0;
}

/* Runs a model without memory on the same team, between the steps of the others. */
static void run_rows(const struct engine *engine)
{
    static const int32_t tokens[] = {1, 5, 9};
    float y[3 * SIZE];
    const struct moed_span spans[] = {{.rows = 1}, {.rows = 2}};
    const void *const inputs[] = {tokens};
    float *const outputs[] = {y};
    moed_forward(engine->model, engine->scratch, engine->team,
                 &(struct moed_batch){spans, 2, inputs, outputs, NULL});
}

static void mix(const struct engine *engine, const struct engine *others,
                struct sequence *const *sequences, size_t count, uint32_t *state)
{
    for (size_t i = 0; i < count; i++)
        start_again(sequences[i]);
    while (!all_done(sequences, count)) {
        struct chunk chunks[8];
        const size_t chosen = choose_chunks(sequences, count, state, chunks);
        if (chosen > 0)
            run_chunks(engine, chunks, chosen);
        run_rows(others);
    }
}

START_TEST(any_mix_of_sequences_gives_the_same_bits)
{
    enum { SEQUENCES = 6, ROUNDS = 12 };
    uint32_t state = 99;
    struct moed_model *model = load(configs[_i]), *rows = load(row_only_config);
    struct sequence *sequences[SEQUENCES];
    struct answer *alone = xcalloc(SEQUENCES, sizeof *alone);
    struct engine first = new_engine(model, LONGEST, 1);
    for (size_t i = 0; i < SEQUENCES; i++) {
        sequences[i] = new_sequence(model, 1 + 7 * i, (uint32_t)i + 50);
        memset(&sequences[i]->answer, 0xff, sizeof sequences[i]->answer);
        run_alone(&first, sequences[i], LONGEST);
        alone[i] = sequences[i]->answer;
    }
    for (size_t i = 0; i < 3; i++) {
        struct engine engine = new_engine(model, SEQUENCES * LONGEST, thread_counts[i]);
        struct engine others = new_engine(rows, 3, thread_counts[i]);
        for (int round = 0; round < ROUNDS; round++) {
            mix(&engine, &others, sequences, SEQUENCES, &state);
            for (size_t j = 0; j < SEQUENCES; j++)
                expect_same(sequences[j], &alone[j], "in a mix");
        }
        free_engine(&others);
        free_engine(&engine);
    }
    for (size_t i = 0; i < SEQUENCES; i++)
        free_sequence(sequences[i]);
    free(alone);
    free_engine(&first);
    moed_model_free(rows);
    moed_model_free(model);
}
END_TEST

/* In the causal model a row depends on more than its own token. */
START_TEST(earlier_positions_matter)
{
    struct moed_model *model = load(causal_config);
    struct sequence *sequence = new_sequence(model, 3, 1);
    struct engine engine = new_engine(model, 3, 1);
    for (size_t i = 0; i < 3; i++)
        sequence->tokens[i] = i == 0 ? 2 : 7;
    run_alone(&engine, sequence, 3);
    const float *y = sequence->answer.y;
    ck_assert(memcmp(y + TOKENS, y + 2 * TOKENS, TOKENS * sizeof *y) != 0);
    free_engine(&engine);
    free_sequence(sequence);
    moed_model_free(model);
}
END_TEST

START_TEST(a_truncated_session_goes_on_as_if_the_rest_had_not_been)
{
    struct moed_model *model = load(causal_config);
    struct sequence *sequence = new_sequence(model, 20, 8);
    struct engine engine = new_engine(model, 20, 1);
    run_alone(&engine, sequence, 20);
    const struct answer expected = sequence->answer;
    /* Adds other tokens from position 12 on and takes them back. */
    moed_session_truncate(sequence->session, 12);
    ck_assert_int_eq(moed_session_reserve(sequence->session, 20), 0);
    sequence->done = 12;
    int32_t tokens[LONGEST];
    memcpy(tokens, sequence->tokens, sizeof tokens);
    for (size_t i = 12; i < 20; i++)
        sequence->tokens[i] = (tokens[i] + 1) % TOKENS;
    run_alone(&engine, sequence, 3);
    ck_assert(memcmp(sequence->answer.y, expected.y, 20 * TOKENS * sizeof(float)) != 0);
    moed_session_truncate(sequence->session, 12);
    ck_assert_int_eq(moed_session_reserve(sequence->session, 20), 0);
    ck_assert_uint_eq(moed_session_length(sequence->session), 12);
    sequence->done = 12;
    memcpy(sequence->tokens, tokens, sizeof tokens);
    run_alone(&engine, sequence, 5);
    expect_same(sequence, &expected, "after truncation");
    free_engine(&engine);
    free_sequence(sequence);
    moed_model_free(model);
}
END_TEST

START_TEST(memory_is_what_the_layers_declare)
{
    struct moed_model *causal = load(causal_config), *decay = load(decay_config);
    struct moed_model *rows = load(row_only_config);
    ck_assert_uint_eq(moed_model_info(causal)->position_bytes, 2 * 2 * SIZE * sizeof(float));
    ck_assert_uint_eq(moed_model_info(decay)->position_bytes, (2 + 1) * SIZE * sizeof(float));
    ck_assert_uint_eq(moed_model_info(rows)->position_bytes, 0);
    moed_model_free(causal);
    moed_model_free(decay);
    moed_model_free(rows);
}
END_TEST

START_TEST(sessions_are_bounded)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = load(causal_config);
    ck_assert_ptr_null(
        moed_pages_new(model, &(struct moed_room){.positions = (size_t)1 << 40}, &err));
    ck_assert_int_eq(err.code, ERROR_INVALID);
    expect_text(err.text, "1099511627776 positions of 128 bytes");
    ck_assert_ptr_null(moed_pages_new(model, &(struct moed_room){.positions = SIZE_MAX}, NULL));
    moed_pages_free(NULL);
    moed_session_free(NULL);
    moed_model_free(model);
}
END_TEST

/* A model of independent rows accepts a session too, and only counts positions. */
START_TEST(a_session_without_memory_counts)
{
    struct moed_model *model = load(row_only_config);
    struct sequence *sequence = new_sequence(model, 9, 4);
    struct engine engine = new_engine(model, 9, 1);
    run_alone(&engine, sequence, 4);
    free_engine(&engine);
    free_sequence(sequence);
    moed_model_free(model);
}
END_TEST

/* The rows of an expert or a gate are not a sequence. */
START_TEST(experts_and_gates_have_no_memory)
{
    expect_refused("[2]",
                   "[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'}]},"
                   "'experts':{'count':2,'layers':[{'op':'decay'}]}}]",
                   NO_TENSORS,
                   "layers[0].experts.layers[0].op: 'decay' keeps memory of a sequence");
    expect_refused("[2]",
                   "[{'op':'moe','name':'m','gate':{'layers':[{'op':'decay'}]},"
                   "'experts':{'count':2,'layers':[{'op':'relu'}]}}]",
                   NO_TENSORS, "layers[0].gate.layers[0].op: 'decay' keeps memory of a sequence");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("session");
    tcase_add_loop_test(tests, steps_chunks_and_at_once_give_the_same_bits, 0, 2);
    tcase_add_loop_test(tests, any_mix_of_sequences_gives_the_same_bits, 0, 2);
    tcase_add_test(tests, earlier_positions_matter);
    tcase_add_test(tests, a_truncated_session_goes_on_as_if_the_rest_had_not_been);
    tcase_add_test(tests, memory_is_what_the_layers_declare);
    tcase_add_test(tests, sessions_are_bounded);
    tcase_add_test(tests, a_session_without_memory_counts);
    tcase_add_test(tests, experts_and_gates_have_no_memory);
    tcase_set_timeout(tests, 300);
    return run_suite("session", tests);
}

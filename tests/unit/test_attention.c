/* Attention over sequences: against a reference in double, and the same bits however a sequence is
 * cut, batched and shared out. */
#include <float.h>

#include "attention_reference.h"
#include "core/half.h"

static const struct attention_options cases[] = {
    {"one head", 1, 1, 16, .causal = true},
    {"heads", 5, 5, 4, .causal = true, .bias = true},
    {"groups", 8, 2, 12, .causal = true, .rotary = 12},
    {"one group", 6, 1, 10, .causal = true, .rotary = 4, .interleaved = true},
    {"wide", 2, 2, 72, .causal = true, .qk_norm = "head", .rotary = 72},
    {"norm of all", 4, 2, 16, .causal = true, .qk_norm = "all", .rotary = 8},
    {"window", 4, 4, 8, .window = 7, .causal = true, .sinks = true, .scale = 0.9},
    {"wide window", 4, 2, 9, .window = 40, .causal = true, .rotary = 8, .moe = true},
    {"sinks", 4, 2, 32, .causal = true, .sinks = true, .rotary = 32, .moe = true},
    {"encoder", 4, 2, 16, .rotary = 16, .bias = true},
    {"encoder with a window", 3, 3, 11, .window = 5, .sinks = true},
};

enum { CASES = sizeof cases / sizeof *cases };

/* ---- tests ---- */

static void compare(const struct attention_options *options, enum moed_kv kv, double limit)
{
    enum { COUNT = 75 };
    struct sequence_weights weights;
    struct moed_model *model = new_sequence_model(options, kv, &weights);
    struct sequence *sequence = new_sequence(model, COUNT, 5);
    double *expected = xcalloc(COUNT * WIDTH, sizeof *expected);
    float *logits = at_once(model, sequence);
    run_reference(options, &weights, sequence->tokens, COUNT, expected);
    for (size_t i = 0; i < COUNT * WIDTH; i++)
        ck_assert_msg(fabs((double)logits[i] - expected[i]) <= limit * (1 + fabs(expected[i])),
                      "%s, %s: [%zu, %zu] is %.7g, expected %.7g", options->name,
                      kv == MOED_KV_F32 ? "f32" : "f16", i / WIDTH, i % WIDTH, (double)logits[i],
                      expected[i]);
    free(logits);
    free(expected);
    free_sequence(sequence);
    free_weights(&weights);
    moed_model_free(model);
}

START_TEST(as_the_reference)
{
    struct attention_options options = cases[_i];
    options.moe = false;
    compare(&options, MOED_KV_F32, 2e-5);
    compare(&options, MOED_KV_F16, options.causal ? 2e-2 : 2e-5);
}
END_TEST

/* Every way to cut some tokens, one bit for each place. */
START_TEST(every_cut_gives_the_same_bits)
{
    enum { MOST = 12, FEWER = 8 };
    const size_t count = _i % 6 == 2 ? MOST : FEWER;
    struct sequence_weights weights;
    struct moed_model *model = new_sequence_model(&cases[_i], MOED_KV_F16, &weights);
    struct sequence *sequence = new_sequence(model, count, 77);
    struct engine engine = new_engine(model, count, 1);
    float *expected = at_once(model, sequence);
    for (unsigned cuts = 0; cases[_i].causal && cuts < 1u << (count - 1); cuts++) {
        size_t rows = 1;
        start_again(sequence);
        for (size_t i = 1; i <= count; i++, rows++)
            if (i == count || cuts & 1u << (i - 1)) {
                run_chunks(&engine, &(struct chunk){sequence, rows}, 1);
                rows = 0;
            }
        expect_same(sequence, expected, cases[_i].name);
    }
    free(expected);
    free_engine(&engine);
    free_sequence(sequence);
    free_weights(&weights);
    moed_model_free(model);
}
END_TEST

/* Some of the unfinished sequences, each with a chunk of a random size; an encoder's are whole. */
static size_t choose_chunks(struct sequence *const *sequences, size_t count, uint32_t *state,
                            struct chunk *chunks)
{
    size_t chosen = 0, first = next_random(state) % count;
    for (size_t i = 0; i < count; i++) {
        struct sequence *sequence = sequences[(first + i) % count];
        const size_t left = sequence->count - sequence->done;
        size_t rows = next_random(state) % 4 ? 1 + next_random(state) % 50 : 1;
        rows = !sequence->session || rows > left ? left : rows;
        if (left > 0 && next_random(state) % 3 != 0)
            chunks[chosen++] = (struct chunk){sequence, rows};
    }
    return chosen;
}

START_TEST(any_mix_gives_the_same_bits)
{
    enum { SEQUENCES = 4, SHORTER = 70 };
    const size_t counts[SEQUENCES] = {_i % 4 == 0 ? LONGEST : SHORTER, 33, 1, 47};
    static const unsigned threads[] = {1, 2, 3};
    uint32_t state = 4;
    struct sequence_weights weights;
    struct moed_model *model =
        new_sequence_model(&cases[_i], _i % 2 ? MOED_KV_F32 : MOED_KV_F16, &weights);
    struct sequence *sequences[SEQUENCES];
    float *alone[SEQUENCES];
    for (size_t i = 0; i < SEQUENCES; i++) {
        sequences[i] = new_sequence(model, counts[i], (uint32_t)i);
        alone[i] = at_once(model, sequences[i]);
    }
    for (size_t round = 0; round < 3; round++) {
        struct engine engine = new_engine(model, SEQUENCES * LONGEST, threads[round]);
        for (size_t i = 0; i < SEQUENCES; i++)
            start_again(sequences[i]);
        for (size_t left = 1; left > 0;) {
            struct chunk chunks[SEQUENCES];
            size_t chosen = choose_chunks(sequences, SEQUENCES, &state, chunks);
            if (chosen > 0)
                run_chunks(&engine, chunks, chosen);
            left = 0;
            for (size_t i = 0; i < SEQUENCES; i++)
                left += sequences[i]->count - sequences[i]->done;
        }
        for (size_t i = 0; i < SEQUENCES; i++)
            expect_same(sequences[i], alone[i], cases[_i].name);
        free_engine(&engine);
    }
    for (size_t i = 0; i < SEQUENCES; i++) {
        free(alone[i]);
        free_sequence(sequences[i]);
    }
    free_weights(&weights);
    moed_model_free(model);
}
END_TEST

START_TEST(only_wanted_rows_are_decoded)
{
    enum { COUNT = 9 };
    struct sequence_weights weights;
    struct moed_model *model = new_sequence_model(&cases[2], MOED_KV_F16, &weights);
    struct sequence *sequence = new_sequence(model, COUNT, 21);
    struct engine engine = new_engine(model, COUNT, 1);
    float *expected = at_once(model, sequence), y[COUNT * WIDTH + 1];
    for (unsigned wishes = 0; wishes < 1u << COUNT; wishes += 1 + wishes / 3) {
        bool wanted[COUNT];
        size_t count = 0;
        start_again(sequence);
        memset(y, 0xff, sizeof y);
        for (size_t i = 0; i < COUNT; i++)
            wanted[i] = wishes & 1u << i;
        const struct moed_span span = {.rows = COUNT, .session = sequence->session};
        const void *const inputs[] = {sequence->tokens};
        float *const outputs[] = {y};
        moed_forward(model, engine.scratch, NULL,
                     &(struct moed_batch){&span, 1, inputs, outputs, wanted});
        for (size_t i = 0; i < COUNT; i++)
            if (wanted[i])
                ck_assert_mem_eq(y + count++ * WIDTH, expected + i * WIDTH, WIDTH * sizeof *y);
        ck_assert(isnan(y[count * WIDTH]));
    }
    free(expected);
    free_engine(&engine);
    free_sequence(sequence);
    free_weights(&weights);
    moed_model_free(model);
}
END_TEST

START_TEST(sequences_are_described)
{
    struct sequence_weights weights;
    for (int kv = 0; kv < 2; kv++) {
        struct moed_model *model = new_sequence_model(&cases[2], (enum moed_kv)kv, &weights);
        const struct moed_model_info *info = moed_model_info(model);
        ck_assert(info->sequence);
        ck_assert_uint_eq(info->context, SEQUENCE_CONTEXT);
        ck_assert_uint_eq(info->inputs[0].shape.rank, 0);
        ck_assert_uint_eq(info->position_bytes,
                          SEQUENCE_LAYERS * 2 * 2 * 12 * (kv == MOED_KV_F32 ? 4 : 2));
        free_weights(&weights);
        moed_model_free(model);
    }
    struct moed_model *encoder = new_sequence_model(&cases[CASES - 1], MOED_KV_F16, &weights);
    ck_assert(moed_model_info(encoder)->sequence);
    ck_assert_uint_eq(moed_model_info(encoder)->position_bytes, 0);
    free_weights(&weights);
    moed_model_free(encoder);
}
END_TEST

#define SEQUENCE_INPUT                                                                             \
    "'inputs':[{'name':'t','shape':[],'categories':3,'layers':[{'op':'embedding','name':'e'}]}]"
#define OVER "{'op':'attention','name':'a','heads':1,'over':'sequence'}"

static const struct {
    const char *config, *message;
} REFUSED[] = {
    {"{'model_type':'moed','format_version':3," SEQUENCE_INPUT ",'layers':[" OVER "]}",
     "layers[0].over: a model of sequences needs a \"context\""},
    {"{'model_type':'moed','format_version':3," SEQUENCE_INPUT
     ",'layers':[{'op':'short_conv','name':'c'}]}",
     "layers[0]: a model of sequences needs a \"context\""},
    {"{'model_type':'moed','format_version':2,'context':8," SEQUENCE_INPUT
     ",'layers':[{'op':'relu'}]}",
     "context"},
    {"{'model_type':'moed','format_version':3,'context':0," SEQUENCE_INPUT
     ",'layers':[{'op':'relu'}]}",
     "context"},
    {"{'model_type':'moed','format_version':3,'context':8,'input':{'shape':[2,2]},"
     "'layers':[" OVER "]}",
     "attention works on rows of [size] over a sequence"},
    {"{'model_type':'moed','format_version':3,'context':8," SEQUENCE_INPUT
     ",'layers':[{'op':'attention','name':'a','heads':1,'over':'sequence','causal':false,"
     "'keep':true}]}",
     "layers[0].keep: only causal attention over a sequence can keep"},
    {"{'model_type':'moed','format_version':3,'context':8,'input':{'shape':[]},'layers':[{'op':"
     "'relu'}]}",
     "input.shape: expected a list of 1 to 6 sizes"},
    {"{'model_type':'moed','format_version':3,'context':8," SEQUENCE_INPUT
     ",'layers':[{'op':'relu'}],'outputs':[{'name':'o','layers':[" OVER "]}]}",
     "outputs[0].layers[0].over: attention over a sequence stands among the model's layers"},
    {"{'model_type':'moed','format_version':3,'context':8," SEQUENCE_INPUT
     ",'layers':[{'op':'relu'}],'outputs':[{'name':'o','layers':[{'op':'short_conv'}]}]}",
     "outputs[0].layers[0]: short_conv over a sequence stands among the model's layers"},
    {"{'model_type':'moed','format_version':3,'context':8," SEQUENCE_INPUT
     ",'layers':[{'op':'moe','name':'m','gate':{'layers':[" OVER
     "]},'experts':{'count':1,'layers':[{'op':'relu'}]}}]}",
     "stands among the model's layers"},
};

START_TEST(bad_configs_are_refused)
{
    const struct stored tensors[] = {STORED("e.weight", DIMS(3, 1), 1, 2, 3),
                                     STORED("a.in_proj_weight", DIMS(3, 1), 1, 2, 3),
                                     STORED("a.out_proj.weight", DIMS(1, 1), 1)};
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        expect_config_refused(REFUSED[i].config, tensors, 3, REFUSED[i].message);
}
END_TEST

/* Every binary16 comes back; what lies between two goes to the nearer one. */
START_TEST(halves_are_rounded)
{
    for (uint32_t bits = 0; bits < 1 << 16; bits++) {
        const float value = float_of_half((uint16_t)bits);
        const uint16_t back = half_of_float(value);
        if (isnan(value))
            ck_assert(isnan(float_of_half(back)));
        else if (isinf(value))
            ck_assert_float_eq(float_of_half(back), value > 0 ? 65504 : -65504);
        else
            ck_assert_uint_eq(back, bits);
        if (bits >= 0x7BFF)
            continue;
        const float next = float_of_half((uint16_t)(bits + 1)), middle = (value + next) / 2;
        ck_assert_uint_eq(half_of_float(nextafterf(middle, 0)), bits);
        ck_assert_uint_eq(half_of_float(nextafterf(middle, 1e9f)), bits + 1);
        ck_assert_uint_eq(half_of_float(middle), bits + bits % 2);
    }
    ck_assert_float_eq(float_of_half(half_of_float(1e30f)), 65504);
}
END_TEST

/* ---- over the positions of one row ---- */

enum { POSITIONS = 70, HIDDEN = 40 }; /* more than a block is hidden */

/* Queries see the last positions only, number 3 all, the last of them nothing. */
static bool hides(size_t query, size_t key)
{
    return query == POSITIONS - 1 || (query != 3 && key < HIDDEN);
}

/* Weights are finite, but scores of -1e32 overflow with a bias of -FLT_MAX, in whole blocks. What
 * is hidden so does not count; where nothing is left the answer is NaN, as PyTorch's. */
START_TEST(biases_hide_whole_blocks)
{
    static float bias[POSITIONS * POSITIONS], x[POSITIONS], y[POSITIONS];
    const struct stored tensors[] = {STORED("a.in_proj_weight", DIMS(3, 1), 0, 0, 1),
                                     STORED("a.in_proj_bias", DIMS(3), 1e16f, -1e16f, 0),
                                     STORED("a.out_proj.weight", DIMS(1, 1), 1),
                                     {"a.bias", 3, {1, POSITIONS, POSITIONS}, bias, NULL}};
    for (size_t i = 0; i < POSITIONS; i++) {
        x[i] = (float)(i % 9) - 2;
        for (size_t j = 0; j < POSITIONS; j++)
            bias[i * POSITIONS + j] = hides(i, j) ? -FLT_MAX : 0;
    }
    struct moed_model *model =
        load_model("{'model_type':'moed','format_version':3,'input':{'shape':[70,1]},"
                   "'layers':[{'op':'attention','name':'a','heads':1}]}",
                   tensors, sizeof tensors / sizeof *tensors);
    run_forward(model, 1, 1, x, y);
    for (size_t i = 0; i < POSITIONS; i++) {
        double sum = 0, all = 0;
        for (size_t j = 0; j < POSITIONS; j++) {
            sum += hides(i, j) ? 0 : (double)x[j];
            all += hides(i, j) ? 0 : 1;
        }
        if (all > 0)
            ck_assert_double_eq_tol((double)y[i], sum / all, 1e-6);
        else
            ck_assert(isnan(y[i]));
    }
    moed_model_free(model);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("attention");
    tcase_add_loop_test(tests, as_the_reference, 0, CASES);
    tcase_add_loop_test(tests, every_cut_gives_the_same_bits, 0, CASES);
    tcase_add_loop_test(tests, any_mix_gives_the_same_bits, 0, CASES);
    tcase_add_test(tests, only_wanted_rows_are_decoded);
    tcase_add_test(tests, sequences_are_described);
    tcase_add_test(tests, bad_configs_are_refused);
    tcase_add_test(tests, biases_hide_whole_blocks);
    tcase_add_test(tests, halves_are_rounded);
    tcase_set_timeout(tests, 300);
    return run_suite("attention", tests);
}

/* sampler: what is left to draw from after every step (cases of tests/data/sampler, computed in
 * numpy and equal to Hugging Face's), how often tokens are drawn, log probabilities, and that
 * nothing but logits, history, options, seed and position decides. */
#include <jansson.h>
#include <math.h>
#include <time.h>

#include "core/memory.h"
#include "core/sampler.h"
#include "core/sampler_select.h"
#include "test_proto_support.h"

/* ---- cases ---- */

enum { CASE_MAX_TOKENS = 128 };

struct sampled {
    float logits[CASE_MAX_TOKENS];
    struct sampler_bias biases[CASE_MAX_TOKENS];
    struct sampler_options options;
    struct sampler_history *history;
    struct sampler_scratch *scratch;
    struct sampler_step step;
};

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void add_history(struct sampled *sampled, const json_t *golden)
{
    struct error err = ERROR_INIT;
    size_t index;
    json_t *token;
    sampled->history = sampler_history_new(CASE_MAX_TOKENS, &err);
    ck_assert_ptr_nonnull(sampled->history);
    json_array_foreach(json_object_get(golden, "prompt"), index, token)
        sampler_history_prompt(sampled->history, (int32_t)json_integer_value(token));
    json_array_foreach(json_object_get(golden, "answer"), index, token)
        sampler_history_answer(sampled->history, (int32_t)json_integer_value(token));
}

static void add_options(struct sampled *sampled, const json_t *golden)
{
    const json_t *options = json_object_get(golden, "options");
    sampled->options = (struct sampler_options){
        .temperature = (float)number_of(options, "temperature"),
        .top_k = (size_t)number_of(options, "top_k"),
        .top_p = (float)number_of(options, "top_p"),
        .min_p = (float)number_of(options, "min_p"),
        .repetition_penalty = (float)number_of(options, "repetition_penalty"),
        .frequency_penalty = (float)number_of(options, "frequency_penalty"),
        .presence_penalty = (float)number_of(options, "presence_penalty"),
        .biases = sampled->biases,
    };
    const char *token;
    json_t *bias;
    json_object_foreach (json_object_get(golden, "biases"), token, bias)
        sampled->biases[sampled->options.bias_count++] =
            (struct sampler_bias){atoi(token), (float)json_number_value(bias)};
}

static void sampled_init(struct sampled *sampled, const json_t *golden)
{
    struct error err = ERROR_INIT;
    size_t index;
    json_t *logit;
    *sampled = (struct sampled){0};
    json_array_foreach(json_object_get(golden, "logits"), index, logit) sampled->logits[index] =
        json_is_null(logit) ? -INFINITY : (float)json_number_value(logit);
    sampled->scratch =
        sampler_scratch_new(json_array_size(json_object_get(golden, "logits")), &err);
    ck_assert_ptr_nonnull(sampled->scratch);
    add_options(sampled, golden);
    add_history(sampled, golden);
    sampled->step = (struct sampler_step){
        .options = &sampled->options, .history = sampled->history, .logits = sampled->logits};
}

static void sampled_close(struct sampled *sampled)
{
    sampler_scratch_free(sampled->scratch);
    sampler_history_free(sampled->history);
}

static json_t *load_cases(void)
{
    json_t *cases = json_load_file(MOED_TEST_DATA "/data/sampler/cases.json", 0, NULL);
    ck_assert_uint_eq(json_array_size(cases), 150);
    return cases;
}

static void expect_kept(struct sampled *sampled, const json_t *kept, size_t number)
{
    struct error err = ERROR_INIT;
    const struct sampler_entry *entries;
    size_t count = sampler_keep(&sampled->step, sampled->scratch, &entries, &err), possible = 0;
    double sum = sampler_sum(entries, count);
    for (size_t i = 0; i < count; i++) {
        char token[16];
        snprintf(token, sizeof token, "%d", (int)entries[i].token);
        double p = (double)entries[i].key / sum, wanted = number_of(kept, token);
        ck_assert_msg(fabs(p - wanted) <= 2e-5 * wanted + 1e-12, "case %zu, token %s: %g, not %g",
                      number, token, p, wanted);
        possible += json_object_get(kept, token) != NULL;
    }
    ck_assert_msg(possible == json_object_size(kept), "case %zu: %zu of %zu tokens are left",
                  number, possible, json_object_size(kept));
}

START_TEST(keeps_what_the_reference_keeps)
{
    json_t *cases = load_cases(), *golden;
    size_t index;
    json_array_foreach(cases, index, golden)
    {
        struct sampled sampled;
        sampled_init(&sampled, golden);
        expect_kept(&sampled, json_object_get(golden, "kept"), index);
        sampled_close(&sampled);
    }
    json_decref(cases);
}
END_TEST

START_TEST(log_probabilities_are_those_of_the_logits)
{
    json_t *cases = load_cases(), *golden;
    size_t index;
    json_array_foreach(cases, index, golden)
    {
        struct sampled sampled;
        struct sampler_choice choice;
        struct error err = ERROR_INIT;
        sampled_init(&sampled, golden);
        sampled.step.logprobs = true;
        sampled.step.top = 5;
        double logsum = number_of(golden, "logsum");
        ck_assert_int_eq(sampler_choose(&sampled.step, sampled.scratch, &choice, &err), 0);
        double wanted = (double)sampled.logits[choice.token] - logsum;
        ck_assert_double_eq_tol((double)choice.logprob, wanted, 1e-5 + 1e-6 * fabs(wanted));
        size_t size = json_array_size(json_object_get(golden, "logits"));
        ck_assert_uint_eq(choice.top_count, size < 5 ? size : 5);
        for (size_t i = 0; i < choice.top_count; i++) {
            int32_t token = choice.top[i].token;
            float logit = sampled.logits[token];
            ck_assert(i == 0 || logit < sampled.logits[choice.top[i - 1].token] ||
                      (logit == sampled.logits[choice.top[i - 1].token] &&
                       token > choice.top[i - 1].token));
            if (logit > -INFINITY)
                ck_assert_double_eq_tol((double)choice.top[i].logprob, (double)logit - logsum,
                                        1e-4);
            else
                ck_assert(choice.top[i].logprob == -INFINITY);
        }
        sampled_close(&sampled);
    }
    json_decref(cases);
}
END_TEST

/* ---- drawing ---- */

enum { DRAWS = 20000 };

/* Pearson's statistic of how often tokens are drawn at positions 0, 1, ... against what is left. */
static double chi_square(struct sampled *sampled, size_t *kinds)
{
    struct error err = ERROR_INIT;
    struct sampler_choice choice;
    size_t drawn[CASE_MAX_TOKENS] = {0};
    for (sampled->step.position = 0; sampled->step.position < DRAWS; sampled->step.position++) {
        ck_assert_int_eq(sampler_choose(&sampled->step, sampled->scratch, &choice, &err), 0);
        drawn[choice.token]++;
    }
    const struct sampler_entry *entries;
    size_t count = sampler_keep(&sampled->step, sampled->scratch, &entries, &err), total = 0;
    double sum = sampler_sum(entries, count), statistic = 0, rest = 0, rest_drawn = 0;
    *kinds = 0;
    for (size_t i = 0; i < count; i++) {
        double expected = DRAWS * (double)entries[i].key / sum;
        double found = (double)drawn[entries[i].token];
        total += drawn[entries[i].token];
        if (expected < 5) { /* the statistic's distribution needs that many */
            rest += expected;
            rest_drawn += found;
            continue;
        }
        statistic += (found - expected) * (found - expected) / expected;
        ++*kinds;
    }
    ck_assert_uint_eq(total, DRAWS); /* nothing else was drawn */
    if (rest >= 5) {
        statistic += (rest_drawn - rest) * (rest_drawn - rest) / rest;
        ++*kinds;
    }
    return statistic;
}

/* Six standard deviations above the mean of the chi-square distribution: the draws are always the
 * same, so this passes or fails forever. */
START_TEST(draws_as_often_as_is_likely)
{
    json_t *cases = load_cases(), *golden;
    size_t index;
    double all = 0, freedom = 0;
    json_array_foreach(cases, index, golden)
    {
        struct sampled sampled;
        size_t kinds;
        if (index % 3 != 0)
            continue;
        sampled_init(&sampled, golden);
        sampled.options.seed = index;
        double statistic = chi_square(&sampled, &kinds), n = (double)kinds - 1;
        ck_assert_msg(statistic <= n + 6 * sqrt(2 * n) + 6, "case %zu: %g of %zu kinds", index,
                      statistic, kinds);
        all += statistic;
        freedom += n;
        sampled_close(&sampled);
    }
    ck_assert_msg(fabs(all - freedom) < 4 * sqrt(2 * freedom), "%g, expected %g", all, freedom);
    json_decref(cases);
}
END_TEST

/* Number `position` of SplitMix64 from the hash of the seed, as published. */
START_TEST(random_numbers_are_fixed)
{
    static const uint64_t published[] = {0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4,
                                         0x06C45D188009454F}; /* of the state 0, which is seed 0 */
    for (uint64_t position = 0; position < 3; position++)
        ck_assert_double_eq(sampler_random(0, position),
                            (double)(published[position] >> 11) * 0x1p-53);
    double sum = 0;
    for (uint64_t seed = 0; seed < 100; seed++)
        for (uint64_t position = 0; position < 100; position++) {
            double random = sampler_random(seed, position);
            ck_assert(random >= 0 && random < 1);
            sum += random;
        }
    ck_assert_double_eq_tol(sum / 10000, 0.5, 0.01);
}
END_TEST

/* ---- choosing ---- */

static int32_t choose(const struct sampler_options *options, const float *logits, size_t count,
                      uint64_t position)
{
    struct error err = ERROR_INIT;
    struct sampler_choice choice;
    struct sampler_scratch *scratch = sampler_scratch_new(count, &err);
    struct sampler_step step = {.options = options, .logits = logits, .position = position};
    ck_assert_int_eq(sampler_choose(&step, scratch, &choice, &err), 0);
    sampler_scratch_free(scratch);
    return choice.token;
}

START_TEST(greedy_ties_go_to_the_lower_id)
{
    static const float logits[] = {-1, 2, 0, 2, 2, -INFINITY, 1, 0, 2, 1};
    struct sampler_options options = SAMPLER_DEFAULTS;
    for (int i = 0; i < 3; i++) {
        options.temperature = (float[]){0, 1e-6f, 1}[i];
        options.top_k = i == 2 ? 1 : 0;
        ck_assert_int_eq(choose(&options, logits, 10, 3), 1);
    }
    options.top_k = 0;
    options.top_p = 0;
    ck_assert_int_eq(choose(&options, logits, 10, 3), 1);
    options.top_p = 1;
    options.min_p = 1;
    bool seen[10] = {0};
    for (uint64_t position = 0; position < 200; position++)
        seen[choose(&options, logits, 10, position)] = true;
    for (int token = 0; token < 10; token++)
        ck_assert_int_eq(seen[token], logits[token] == 2);
}
END_TEST

START_TEST(the_same_step_gives_the_same_token)
{
    enum { VOCABULARY = 1000 };
    float logits[VOCABULARY], others[VOCABULARY];
    for (int i = 0; i < VOCABULARY; i++) {
        logits[i] = (float)(i * 37 % 101) / 20;
        others[i] = (float)(i * 7 % 13);
    }
    struct error err = ERROR_INIT;
    struct sampler_scratch *scratch = sampler_scratch_new(VOCABULARY, &err);
    struct sampler_options options = {
        .temperature = 0.9f, .top_k = 300, .top_p = 0.8f, .repetition_penalty = 1, .seed = 42};
    struct sampler_choice choice;
    int32_t different = 0;
    for (uint64_t position = 0; position < 50; position++) {
        int32_t alone = choose(&options, logits, VOCABULARY, position);
        struct sampler_step other = {&options, NULL, others, position, true, 20};
        struct sampler_step same = {&options, NULL, logits, position, true, 20};
        ck_assert_int_eq(sampler_choose(&other, scratch, &choice, &err), 0);
        ck_assert_int_eq(sampler_choose(&same, scratch, &choice, &err), 0);
        ck_assert_int_eq(choice.token, alone);
        different += alone != choose(&options, logits, VOCABULARY, position + 1000);
    }
    ck_assert_int_gt(different, 40);
    sampler_scratch_free(scratch);
}
END_TEST

START_TEST(refuses_logits_that_are_not_finite)
{
    struct sampler_options options = SAMPLER_DEFAULTS;
    struct error out = ERROR_INIT;
    struct sampler_scratch *scratch = sampler_scratch_new(20, &out);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 60; i++) {
        float logits[20] = {0};
        for (int j = 0; j < 20; j++)
            logits[j] = i % 3 == 2 ? -INFINITY : 1;
        logits[i / 3] = bad[i % 3];
        options.temperature = i % 2 ? 1.0f : 0.0f;
        struct sampler_step step = {.options = &options, .logits = logits};
        struct sampler_choice choice;
        struct error err = ERROR_INIT;
        ck_assert_int_eq(sampler_choose(&step, scratch, &choice, &err), -1);
        ck_assert_int_eq(err.code, ERROR_INTERNAL);
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(sampler_score(logits, 3, 2, scratch, &choice, &err), -1);
    }
    sampler_scratch_free(scratch);
}
END_TEST

START_TEST(scores_given_tokens)
{
    static const float logits[] = {0, 0, 0, 0, -INFINITY};
    struct error err = ERROR_INIT;
    struct sampler_scratch *scratch = sampler_scratch_new(5, &err);
    struct sampler_choice choice;
    ck_assert_int_eq(sampler_score(logits, 2, 30, scratch, &choice, &err), 0);
    ck_assert_float_eq_tol(choice.logprob, -logf(4), 1e-6f);
    ck_assert_int_eq(choice.token, 2);
    ck_assert_uint_eq(choice.top_count, 5);
    ck_assert_int_eq(choice.top[0].token, 0);
    ck_assert(choice.top[4].logprob == -INFINITY);
    ck_assert_int_eq(sampler_score(logits, 4, 0, scratch, &choice, &err), 0);
    ck_assert(choice.logprob == -INFINITY);
    ck_assert_uint_eq(choice.top_count, 0);
    sampler_scratch_free(scratch);
}
END_TEST

/* ---- large vocabularies ---- */

/* Two hundred choices from 150,000 tokens, for the most expensive shapes of a distribution. */
START_TEST(large_vocabularies_are_quick)
{
    enum { VOCABULARY = 150000 };
    struct error err = ERROR_INIT;
    float *logits = xcalloc(VOCABULARY, sizeof *logits);
    struct sampler_scratch *scratch = sampler_scratch_new(VOCABULARY, &err);
    static const struct sampler_options kinds[] = {
        {.temperature = 0, .repetition_penalty = 1, .top_p = 1},
        {.temperature = 1, .repetition_penalty = 1, .top_p = 1},
        {.temperature = 1, .repetition_penalty = 1, .top_p = 0.95f},
        {.temperature = 1, .repetition_penalty = 1, .top_k = 50, .top_p = 0.95f},
        {.temperature = 1, .repetition_penalty = 1, .top_k = 149999, .top_p = 1},
    };
    for (int shape = 0; shape < 3; shape++) {
        for (int i = 0; i < VOCABULARY; i++) {
            double random = sampler_random(1, (uint64_t)i);
            logits[i] = (float)((double[]){0, i * 1e-5, random * 20}[shape]);
        }
        for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
            clock_t began = clock();
            for (uint64_t position = 0; position < 10; position++) {
                struct sampler_choice choice;
                struct sampler_step step = {&kinds[kind], NULL, logits, position, true, 20};
                ck_assert_int_eq(sampler_choose(&step, scratch, &choice, &err), 0);
            }
            double each = (double)(clock() - began) / CLOCKS_PER_SEC / 10;
            ck_assert_msg(each < 0.5, "shape %d, kind %zu: %g s", shape, kind, each);
            if (getenv("MOED_TEST_TIMES"))
                printf("shape %d, kind %zu: %.2f ms\n", shape, kind, 1e3 * each);
        }
    }
    sampler_scratch_free(scratch);
    free(logits);
}
END_TEST

RUN_TESTS("sampler", keeps_what_the_reference_keeps, log_probabilities_are_those_of_the_logits,
          draws_as_often_as_is_likely, random_numbers_are_fixed, greedy_ties_go_to_the_lower_id,
          the_same_step_gives_the_same_token, refuses_logits_that_are_not_finite,
          scores_given_tokens, large_vocabularies_are_quick)

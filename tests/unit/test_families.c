/* Published checkpoints: tiny models of every family give the logits that transformers gives, and
 * route every token to the same experts, at once and token by token (tests/data/families/make.py).
 */
#include <dirent.h>

#include "core/load/safetensors.h"
#include "support.h"

#define FAMILIES MOED_TEST_DATA "/data/families/"

enum { SEQUENCES = 3, MOST_K = 8 };

/* ---- what transformers says ---- */

static const struct tensor *expected(const struct safetensors *file, const char *what, size_t s,
                                     size_t m)
{
    char name[64];
    snprintf(name, sizeof name, m == SIZE_MAX ? "%s.%zu" : "%s.%zu.%zu", what, s, m);
    return safetensors_find(file, name);
}

static const float *numbers(const struct tensor *tensor)
{
    ck_assert_ptr_nonnull(tensor);
    return tensor->data;
}

/* ---- running ---- */

struct case_of {
    const struct moed_model *model;
    struct moed_scratch *scratch;
    struct moed_team *team;
    size_t rows, vocabulary;
    const int32_t *tokens;
    struct moed_session *session;
    float *logits;    /* [rows, vocabulary] */
    int32_t *experts; /* [gates, rows, MOST_K], by index */
    float *weights;
};

static void keep_routing(struct case_of *run, size_t first, size_t count)
{
    for (size_t gate = 0; gate < moed_model_info(run->model)->gate_count; gate++) {
        const struct moed_routing *routing = moed_routing(run->scratch, gate);
        size_t k = routing->top_k;
        ck_assert_uint_le(k, MOST_K);
        for (size_t i = 0; i < count * k; i++) {
            /* Sorted by index: how many of the item's others are smaller is the place. */
            const int32_t *item = routing->expert + i / k * k;
            size_t place = 0, row = first + i / k;
            for (size_t j = 0; j < k; j++)
                place += item[j] < routing->expert[i];
            size_t at = (gate * run->rows + row) * MOST_K + place;
            run->experts[at] = routing->expert[i];
            run->weights[at] = routing->weight[i];
        }
    }
}

/* Runs the sequence in chunks of `chunk` tokens. */
static void run_chunks(struct case_of *run, size_t chunk)
{
    struct error err = ERROR_INIT;
    struct moed_pages *pages = moed_pages_new(run->model, run->rows, &err);
    ck_assert_msg(pages != NULL, "%s", err.text);
    run->session = moed_session_new(pages, &err);
    ck_assert_msg(run->session != NULL, "%s", err.text);
    ck_assert_int_eq(moed_session_reserve(run->session, run->rows), 0);
    for (size_t at = 0; at < run->rows; at += chunk) {
        size_t count = run->rows - at < chunk ? run->rows - at : chunk;
        const struct moed_span span = {.rows = count, .position = at, .session = run->session};
        const void *const inputs[] = {run->tokens + at};
        float *const outputs[] = {run->logits + at * run->vocabulary};
        moed_forward(run->model, run->scratch, run->team,
                     &(struct moed_batch){
                         .spans = &span, .span_count = 1, .inputs = inputs, .outputs = outputs});
        keep_routing(run, at, count);
    }
    moed_session_free(run->session);
    moed_pages_free(pages);
}

static void check_logits(const struct case_of *run, const char *family, size_t s,
                         const float *right)
{
    for (size_t i = 0; i < run->rows * run->vocabulary; i++)
        ck_assert_msg(fabsf(run->logits[i] - right[i]) <= 1e-4f * fabsf(right[i]) + 2e-5f,
                      "%s, sequence %zu, logit %zu of token %zu is %.7g, transformers gives %.7g",
                      family, s, i % run->vocabulary, i / run->vocabulary, (double)run->logits[i],
                      (double)right[i]);
}

static void check_routing(const struct case_of *run, const struct safetensors *file,
                          const char *family, size_t s)
{
    size_t gates = moed_model_info(run->model)->gate_count;
    ck_assert_ptr_null(expected(file, "experts", s, gates));
    for (size_t gate = 0; gate < gates; gate++) {
        size_t k = moed_model_info(run->model)->gates[gate].top_k;
        const float *experts = numbers(expected(file, "experts", s, gate));
        const float *weights = numbers(expected(file, "weights", s, gate));
        for (size_t i = 0; i < run->rows * k; i++) {
            size_t at = (gate * run->rows + i / k) * MOST_K + i % k;
            ck_assert_msg(run->experts[at] == (int32_t)experts[i],
                          "%s, sequence %zu, gate %zu, token %zu: expert %d, transformers: %d",
                          family, s, gate, i / k, run->experts[at], (int)experts[i]);
            ck_assert_msg(fabsf(run->weights[at] - weights[i]) <= 1e-4f,
                          "%s, sequence %zu, gate %zu, token %zu: weight %g, transformers: %g",
                          family, s, gate, i / k, (double)run->weights[at], (double)weights[i]);
        }
    }
}

static void check_sequence(const struct moed_model *model, const struct safetensors *file,
                           const char *family, size_t s)
{
    int32_t tokens[64];
    const struct tensor *stored = expected(file, "tokens", s, SIZE_MAX);
    const float *values = numbers(stored), *right = numbers(expected(file, "logits", s, SIZE_MAX));
    struct case_of run = {.model = model, .rows = stored->elements, .tokens = tokens};
    for (size_t i = 0; i < run.rows; i++)
        tokens[i] = (int32_t)values[i];
    run.vocabulary = moed_model_info(model)->outputs[0].elements;
    run.scratch = new_scratch(model, run.rows, 2, NULL);
    struct moed_team *team = moed_team_new(2);
    team_fork_from(team, 0);
    size_t logits = run.rows * run.vocabulary;
    size_t pairs = (moed_model_info(model)->gate_count + 1) * run.rows * MOST_K;
    run.logits = xcalloc(logits, sizeof *run.logits);
    run.experts = xcalloc(pairs, sizeof *run.experts);
    run.weights = xcalloc(pairs, sizeof *run.weights);
    float *at_once = xcalloc(logits, sizeof *at_once);
    const size_t chunks[] = {run.rows, run.rows, 1, 5, 5};
    size_t ways = moed_model_info(model)->position_bytes ? 5 : 2; /* an encoder sees all at once */
    for (size_t i = 0; i < ways; i++) {
        run.team = i % 2 ? team : NULL;
        run_chunks(&run, chunks[i]);
        check_logits(&run, family, s, right);
        check_routing(&run, file, family, s);
        if (i == 0)
            memcpy(at_once, run.logits, logits * sizeof *at_once);
        ck_assert_mem_eq(at_once, run.logits, logits * sizeof *at_once);
    }
    moed_team_free(team);
    moed_scratch_free(run.scratch);
    free(at_once);
    free(run.logits);
    free(run.experts);
    free(run.weights);
}

static void check_family(const char *family)
{
    struct error err = ERROR_INIT;
    char path[PATH_MAX];
    const struct moed_load_options exact = {.kv = MOED_KV_F32},
                                   copied = {.kv = MOED_KV_F32, .copy = true};
    snprintf(path, sizeof path, FAMILIES "%s/expected", family);
    struct safetensors *file = safetensors_open(path, false, &err);
    ck_assert_msg(file != NULL, "%s", err.text);
    snprintf(path, sizeof path, FAMILIES "%s", family);
    for (int copy = 0; copy < 2; copy++) {
        struct moed_model *model = moed_model_load(path, copy ? &copied : &exact, &err);
        ck_assert_msg(model != NULL, "%s", err.text);
        for (size_t s = 0; s < SEQUENCES; s++)
            check_sequence(model, file, family, s);
        moed_model_free(model);
    }
    safetensors_free(file);
}

/* Weights of integers: logits are close to those of what the weights stand for. */
static void check_rounded(const char *family, const struct moed_load_options *options, float most)
{
    struct error err = ERROR_INIT;
    char path[PATH_MAX];
    snprintf(path, sizeof path, FAMILIES "%s", family);
    struct moed_model *whole = moed_model_load(path, NULL, &err);
    struct moed_model *small = moed_model_load(path, options, &err);
    ck_assert_msg(whole && small, "%s", err.text);
    const struct moed_model *const models[] = {whole, small};
    float *logits[2], square = 0, difference = 0;
    int32_t tokens[] = {11, 7};
    size_t count = 2 * moed_model_info(whole)->outputs[0].elements;
    for (size_t i = 0; i < 2; i++) {
        logits[i] = xcalloc(count, sizeof *logits[i]);
        struct case_of run = {.model = models[i], .rows = 2, .tokens = tokens, .logits = logits[i]};
        size_t pairs = (moed_model_info(whole)->gate_count + 1) * run.rows * MOST_K;
        run.vocabulary = count / 2;
        run.scratch = new_scratch(models[i], 2, 1, NULL);
        run.experts = xcalloc(pairs, sizeof *run.experts);
        run.weights = xcalloc(pairs, sizeof *run.weights);
        run_chunks(&run, 2);
        moed_scratch_free(run.scratch);
        free(run.experts);
        free(run.weights);
    }
    for (size_t i = 0; i < count; i++) {
        square += logits[0][i] * logits[0][i];
        difference += (logits[0][i] - logits[1][i]) * (logits[0][i] - logits[1][i]);
    }
    ck_assert_msg(difference > 0 && difference < most * square, "%s: %g of %g", family,
                  (double)difference, (double)square);
    free(logits[0]);
    free(logits[1]);
    moed_model_free(small);
    moed_model_free(whole);
}

START_TEST(weights_of_integers_change_logits_little)
{
    static const char *const families[] = {"olmoe", "qwen3_moe", "gpt_oss_mxfp4", "granitemoe"};
    const struct moed_load_options eight = {.weights = MOED_WEIGHTS_INT8},
                                   four = {.weights = MOED_WEIGHTS_INT4},
                                   mixed = {MOED_WEIGHTS_INT8, .f32_activations = true};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        check_rounded(families[i], &eight, 0.002f);
        check_rounded(families[i], &mixed, 0.002f);
        check_rounded(families[i], &four, 0.1f);
    }
}
END_TEST

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && !strchr(entry->d_name, '.');
}

START_TEST(logits_and_experts_are_those_of_transformers)
{
    struct dirent **entries;
    int count = scandir(FAMILIES, &entries, is_visible, alphasort);
    const char *only = getenv("FAMILY");
    ck_assert_int_gt(count, 0);
    for (int i = 0; i < count; i++) {
        if (!only || strcmp(only, entries[i]->d_name) == 0)
            check_family(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}
END_TEST

TEST_MAIN("families", logits_and_experts_are_those_of_transformers,
          weights_of_integers_change_logits_little)

/* Published checkpoints: tiny models of every family give the logits that transformers gives, and
 * route every token to the same experts, at once and token by token (tests/data/families/make.py).
 */
#include <dirent.h>

#include "core/load/safetensors.h"
#include "core/model.h"
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
    struct moed_pages *pages =
        moed_pages_new(run->model, &(struct moed_room){.positions = run->rows}, &err);
    ck_assert_msg(pages != NULL, "%s", err.text);
    run->session = moed_session_new(pages);
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
                                   mixed = {MOED_WEIGHTS_INT8, .activations = MOED_ACTIVATIONS_F32};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        check_rounded(families[i], &eight, 0.002f);
        check_rounded(families[i], &mixed, 0.002f);
        check_rounded(families[i], &four, 0.1f);
    }
}
END_TEST

START_TEST(a_head_has_six_bits_where_others_have_four)
{
    struct moed_model *models[2];
    size_t heads[2];
    for (size_t i = 0; i < 2; i++) {
        struct error err = ERROR_INIT;
        const struct moed_load_options options = {.weights =
                                                      i ? MOED_WEIGHTS_INT4 : MOED_WEIGHTS_INT8};
        models[i] = moed_model_load(FAMILIES "olmoe", &options, &err);
        ck_assert_msg(models[i] != NULL, "%s", err.text);
        const struct chain *chain = &models[i]->outputs[0].chain;
        heads[i] = chain->layers[chain->count - 1].cost.weight_bytes;
    }
    ck_assert_uint_eq(heads[1] * (32 + 2), heads[0] * (24 + 2)); /* 32 numbers and a scale */
    ck_assert_uint_lt(models[1]->chain.cost.weight_bytes, models[0]->chain.cost.weight_bytes);
    moed_model_free(models[0]);
    moed_model_free(models[1]);
}
END_TEST

/* Of a model of one decoder layer: its attention and its experts or network. */
static void read_bytes(const char *path, enum moed_weights weights, size_t bytes[2])
{
    struct error err = ERROR_INIT;
    const struct moed_load_options options = {.weights = weights};
    struct moed_model *model = moed_model_load(path, &options, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    const struct layer *last = &model->chain.layers[model->chain.count - 1];
    bytes[0] = last[-1].cost.weight_bytes;
    bytes[1] = last->cost.weight_bytes;
    moed_model_free(model);
}

START_TEST(mxfp4_keeps_its_four_bits)
{
    size_t stored[2], eight[2], four[2];
    read_bytes(FAMILIES "gpt_oss_mxfp4", MOED_WEIGHTS_STORED, stored);
    read_bytes(FAMILIES "gpt_oss_mxfp4", MOED_WEIGHTS_INT8, eight);
    read_bytes(FAMILIES "gpt_oss_mxfp4", MOED_WEIGHTS_INT4, four);
    ck_assert_uint_eq(eight[1], four[1]);
    ck_assert_uint_gt(eight[0], four[0]);
    /* Three experts of three matrices; a number has 8 bits beside f32 inputs, a scale 32. */
    ck_assert_uint_eq(stored[1] - four[1], 9 * 32 * (32 * 1 + 4 - (32 / 2 + 2)));
}
END_TEST

/* As F32 they had three times as many bytes as rounded to 8 bits. */
START_TEST(fp8_keeps_its_eight_bits)
{
    size_t stored[2], eight[2];
    read_bytes(FAMILIES "qwen3_fp8", MOED_WEIGHTS_STORED, stored);
    read_bytes(FAMILIES "qwen3_fp8", MOED_WEIGHTS_INT8, eight);
    ck_assert_uint_lt(stored[0], 2 * eight[0]);
    ck_assert_uint_lt(stored[1], 2 * eight[1]);
}
END_TEST

/* ---- the same bits ---- */

enum { BESIDE = 2, MOST_TOKENS = 64 };

/* Two sequences of a family, which are computed beside each other or not. */
struct pair {
    const struct moed_model *model;
    struct moed_scratch *scratch;
    size_t count[BESIDE], vocabulary;
    int32_t tokens[BESIDE][MOST_TOKENS];
};

static void read_pair(struct pair *pair, const char *family)
{
    struct error err = ERROR_INIT;
    char path[PATH_MAX];
    snprintf(path, sizeof path, FAMILIES "%s/expected", family);
    struct safetensors *file = safetensors_open(path, false, &err);
    ck_assert_msg(file != NULL, "%s", err.text);
    for (size_t s = 0; s < BESIDE; s++) {
        const struct tensor *stored = expected(file, "tokens", s, SIZE_MAX);
        pair->count[s] = stored->elements;
        for (size_t i = 0; i < stored->elements; i++)
            pair->tokens[s][i] = (int32_t)numbers(stored)[i];
    }
    safetensors_free(file);
}

/* The next chunks of the sequences that have some left, at most `chunk[s]` tokens of each, in one
 * pass. Returns whether there were any. */
static bool run_next(struct pair *pair, struct moed_team *team,
                     struct moed_session *const sessions[BESIDE], const size_t chunk[BESIDE],
                     float *const logits[BESIDE])
{
    struct moed_span spans[BESIDE];
    int32_t tokens[BESIDE * MOST_TOKENS];
    size_t of[BESIDE], count = 0, rows = 0;
    for (size_t s = 0; s < BESIDE; s++) {
        const size_t done = moed_session_length(sessions[s]), left = pair->count[s] - done;
        const size_t next = left < chunk[s] ? left : chunk[s];
        if (next == 0)
            continue;
        of[count] = s;
        spans[count++] = (struct moed_span){.rows = next, .position = done, .session = sessions[s]};
        memcpy(tokens + rows, pair->tokens[s] + done, next * sizeof *tokens);
        rows += next;
    }
    float *y = xcalloc(rows + 1, pair->vocabulary * sizeof *y), *from = y;
    const void *const inputs[] = {tokens};
    if (rows > 0)
        moed_forward(pair->model, pair->scratch, team,
                     &(struct moed_batch){.spans = spans,
                                          .span_count = count,
                                          .inputs = inputs,
                                          .outputs = &(float *const){y}});
    for (size_t i = 0; i < count; from += spans[i++].rows * pair->vocabulary)
        memcpy(logits[of[i]] + spans[i].position * pair->vocabulary, from,
               spans[i].rows * pair->vocabulary * sizeof *y);
    free(y);
    return rows > 0;
}

/* All of both, in chunks of so many tokens; 0: the other one first. */
static void run_pair(struct pair *pair, struct moed_team *team, const size_t chunk[BESIDE],
                     float *const logits[BESIDE])
{
    struct error err = ERROR_INIT;
    struct moed_session *sessions[BESIDE];
    struct moed_pages *pages =
        moed_pages_new(pair->model, &(struct moed_room){.positions = BESIDE * MOST_TOKENS}, &err);
    const size_t rest[BESIDE] = {MOST_TOKENS, MOST_TOKENS};
    ck_assert_msg(pages != NULL, "%s", err.text);
    for (size_t s = 0; s < BESIDE; s++) {
        sessions[s] = moed_session_new(pages);
        ck_assert_int_eq(moed_session_reserve(sessions[s], pair->count[s]), 0);
    }
    while (run_next(pair, team, sessions, chunk, logits))
        ;
    (void)run_next(pair, team, sessions, rest, logits);
    for (size_t s = 0; s < BESIDE; s++)
        moed_session_free(sessions[s]);
    moed_pages_free(pages);
}

static void check_pair(struct pair *pair, struct moed_team *team, const char *family)
{
    static const size_t ways[][BESIDE] = {{1, 5}, {MOST_TOKENS, 1}},
                        alone[BESIDE] = {MOST_TOKENS, 0},
                        together[BESIDE] = {MOST_TOKENS, MOST_TOKENS};
    const bool chunks = moed_model_info(pair->model)->position_bytes > 0; /* or all at once */
    float *right[BESIDE], *logits[BESIDE];
    for (size_t s = 0; s < BESIDE; s++) {
        right[s] = xcalloc(MOST_TOKENS, pair->vocabulary * sizeof **right);
        logits[s] = xcalloc(MOST_TOKENS, pair->vocabulary * sizeof **logits);
    }
    run_pair(pair, NULL, alone, right);
    for (size_t way = 0; way < (chunks ? 5 : 2); way++) {
        run_pair(pair, way % 2 ? team : NULL, way == 0 || !chunks ? together : ways[(way - 1) / 2],
                 logits);
        for (size_t s = 0; s < BESIDE; s++)
            ck_assert_msg(memcmp(logits[s], right[s],
                                 pair->count[s] * pair->vocabulary * sizeof **right) == 0,
                          "%s, sequence %zu: other bits in way %zu", family, s, way);
    }
    for (size_t s = 0; s < BESIDE; s++) {
        free(right[s]);
        free(logits[s]);
    }
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.' && !strchr(entry->d_name, '.');
}

/* As it is served: keys and values in F16, weights stored or rounded; beside another sequence, in
 * chunks, on two threads. */
START_TEST(no_neighbour_chunk_or_thread_changes_a_bit)
{
    static const struct moed_load_options forms[] = {{.weights = MOED_WEIGHTS_STORED},
                                                     {.weights = MOED_WEIGHTS_INT8},
                                                     {.weights = MOED_WEIGHTS_INT4}};
    struct dirent **entries;
    int count = scandir(FAMILIES, &entries, is_visible, alphasort);
    struct moed_team *team = moed_team_new(2);
    team_fork_from(team, 0);
    for (int i = 0; i < count; i++) {
        const char *family = entries[i]->d_name;
        char path[PATH_MAX];
        snprintf(path, sizeof path, FAMILIES "%s", family);
        struct pair pair;
        read_pair(&pair, family);
        for (size_t form = 0; form < sizeof forms / sizeof *forms; form++) {
            struct error err = ERROR_INIT;
            struct moed_model *model = moed_model_load(path, &forms[form], &err);
            ck_assert_msg(model != NULL, "%s", err.text);
            pair.model = model;
            pair.vocabulary = moed_model_info(model)->outputs[0].elements;
            pair.scratch = new_scratch(model, BESIDE * MOST_TOKENS, 2, NULL);
            check_pair(&pair, team, family);
            moed_scratch_free(pair.scratch);
            moed_model_free(model);
        }
        free(entries[i]);
    }
    free(entries);
    moed_team_free(team);
}
END_TEST

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
          weights_of_integers_change_logits_little, a_head_has_six_bits_where_others_have_four,
          mxfp4_keeps_its_four_bits, fp8_keeps_its_eight_bits,
          no_neighbour_chunk_or_thread_changes_a_bit)

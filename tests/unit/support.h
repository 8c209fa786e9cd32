/* Shared by the tests of core/ and server/: a temporary directory that is removed when the test
 * program ends, checkpoints written from C, and a shorthand for "these layers map x to y".
 *
 * Configurations use ' instead of ", which keeps them readable inside C strings. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#ifndef _GNU_SOURCE
#endif
#include <check.h>
#include <ftw.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/dense/team.h"
#include "core/memory.h"
#include "core/moed.h"
#include "core/text.h"
#include "patience.h"

/* ---- the temporary directory ---- */

/* The test runner's own process makes and removes it, so a test that crashes leaves nothing. */
static char support_root[] = "/tmp/moed-test-XXXXXX";

static inline int support_remove(const char *path, const struct stat *status, int type,
                                 struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

/* Makes a directory that no other test uses; the caller frees the path. */
static inline char *new_directory(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/XXXXXX", support_root);
    ck_assert_ptr_nonnull(mkdtemp(path));
    return xstrdup(path);
}

static inline FILE *create_file(const char *directory, const char *name)
{
    char path[PATH_MAX];
    ck_assert_int_lt(snprintf(path, sizeof path, "%s/%s", directory, name), PATH_MAX);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    return file;
}

/* Reads at most `most` bytes of a file; returns how many it has. */
static inline size_t load_file(const char *path, char *bytes, size_t most)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    const size_t length = fread(bytes, 1, most, file);
    fclose(file);
    return length;
}

static inline void write_file(const char *directory, const char *name, const void *bytes,
                              size_t count)
{
    FILE *file = create_file(directory, name);
    ck_assert_uint_eq(fwrite(bytes, 1, count, file), count);
    ck_assert_int_eq(fclose(file), 0);
}

/* JSON written with single quotes. */
static inline void write_json(const char *directory, const char *name, const char *text)
{
    char *json = xstrdup(text);
    for (char *c = json; *c; c++)
        if (*c == '\'')
            *c = '"';
    write_file(directory, name, json, strlen(json));
    free(json);
}

/* ---- checkpoints ---- */

struct stored {
    const char *name;
    size_t rank, dims[4];
    const void *values;
    const char *dtype; /* NULL: F32 */
};

#define DIMS(...)                                                                                  \
    sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t),                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
/* STORED("fc.weight", DIMS(1, 2), 0.5f, -3) */
#define STORED(name, dims, ...)                                                                    \
    {                                                                                              \
        name, dims, (const float[]){__VA_ARGS__}, NULL                                             \
    }
/* Two arguments: the tensors and their count. */
#define TENSORS(...)                                                                               \
    (const struct stored[]){__VA_ARGS__},                                                          \
        sizeof((const struct stored[]){__VA_ARGS__}) / sizeof(struct stored)
#define NO_TENSORS NULL, 0

static inline size_t stored_bytes(const struct stored *tensor)
{
    size_t bytes = tensor->dtype && strcmp(tensor->dtype, "F32") != 0 ? 2 : 4;
    for (size_t i = 0; i < tensor->rank; i++)
        bytes *= tensor->dims[i];
    return bytes;
}

/* Writes one safetensors file; `padding` spaces after the header shift the data's alignment. */
static inline void write_safetensors(const char *directory, const char *name,
                                     const struct stored *tensors, size_t count, size_t padding)
{
    char *header;
    size_t length, offset = 0;
    FILE *text = open_memstream(&header, &length);
    fputc('{', text);
    for (size_t i = 0; i < count; i++) {
        const struct stored *tensor = &tensors[i];
        fprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", tensor->name,
                tensor->dtype ? tensor->dtype : "F32");
        for (size_t axis = 0; axis < tensor->rank; axis++)
            fprintf(text, "%s%zu", axis ? "," : "", tensor->dims[axis]);
        fprintf(text, "],\"data_offsets\":[%zu,%zu]}", offset, offset + stored_bytes(tensor));
        offset += stored_bytes(tensor);
    }
    fprintf(text, "}%*s", (int)padding, "");
    fclose(text);

    FILE *file = create_file(directory, name);
    for (size_t i = 0; i < 8; i++)
        fputc((int)(length >> 8 * i & 0xff), file);
    fwrite(header, 1, length, file);
    for (size_t i = 0; i < count; i++)
        fwrite(tensors[i].values, 1, stored_bytes(&tensors[i]), file);
    ck_assert_int_eq(fclose(file), 0);
    free(header);
}

static inline void write_checkpoint(const char *directory, const char *config,
                                    const struct stored *tensors, size_t count)
{
    mkdir(directory, 0700);
    write_json(directory, "config.json", config);
    write_safetensors(directory, "model.safetensors", tensors, count, 0);
}

/* The configuration of a model with these layers; the caller frees it. Not inline: with sanitizers
 * GCC would see a null there that cannot be. */
static __attribute__((noinline, unused)) char *config_of(const char *shape, const char *layers)
{
    size_t size = strlen(shape) + strlen(layers) + 128;
    char *config = xmalloc(size);
    snprintf(config, size,
             "{'model_type':'moed','format_version':1,'input':{'shape':%s},'layers':%s}", shape,
             layers);
    return config;
}

static inline struct moed_model *try_load(const char *config, const struct stored *tensors,
                                          size_t count, struct error *err)
{
    char *directory = new_directory();
    write_checkpoint(directory, config, tensors, count);
    struct moed_model *model = moed_model_load(directory, NULL, err);
    free(directory);
    return model;
}

static inline struct moed_model *load_model(const char *config, const struct stored *tensors,
                                            size_t count)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = try_load(config, tensors, count, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    return model;
}

static inline struct moed_model *load_layers(const char *shape, const char *layers,
                                             const struct stored *tensors, size_t count)
{
    char *config = config_of(shape, layers);
    struct moed_model *model = load_model(config, tensors, count);
    free(config);
    return model;
}

static inline void expect_text(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in: %s", part, text);
}

/* Expects the checkpoint to be refused with a message that contains `part`. */
static inline void expect_config_refused(const char *config, const struct stored *tensors,
                                         size_t count, const char *part)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = try_load(config, tensors, count, &err);
    ck_assert_msg(!model, "accepted: %s", config);
    ck_assert_int_ne(err.code, ERROR_NONE);
    expect_text(err.text, part);
}

static inline void expect_refused(const char *shape, const char *layers,
                                  const struct stored *tensors, size_t count, const char *part)
{
    char *config = config_of(shape, layers);
    expect_config_refused(config, tensors, count, part);
    free(config);
}

/* ---- forwards ---- */

static inline struct moed_scratch *new_scratch(const struct moed_model *model, size_t rows,
                                               unsigned threads, struct error *err)
{
    const struct moed_scratch_options options = {rows, threads, .distributions = true};
    return moed_scratch_new(model, &options, err);
}

/* Runs rows of one span. */
static inline void forward(const struct moed_model *model, struct moed_scratch *scratch,
                           struct moed_team *team, size_t rows, void *const *inputs,
                           float *const *outputs)
{
    const struct moed_span span = {.rows = rows};
    moed_forward(model, scratch, team,
                 &(struct moed_batch){&span, 1, (const void *const *)inputs, outputs, NULL});
}

/* Like forward(), for a model with one input and one output. */
static inline void forward_rows(const struct moed_model *model, struct moed_scratch *scratch,
                                struct moed_team *team, size_t rows, const float *x, float *y)
{
    const struct moed_span span = {.rows = rows};
    const void *const inputs[] = {x};
    moed_forward(model, scratch, team, &(struct moed_batch){&span, 1, inputs, &y, NULL});
}

/* Runs one forward pass in a scratch of exactly `rows`, so that the sanitizer detects every
 * overrun. */
static inline void run_forward(const struct moed_model *model, unsigned threads, size_t rows,
                               const float *x, float *y)
{
    struct error err = ERROR_INIT;
    struct moed_scratch *scratch = new_scratch(model, rows, threads, &err);
    ck_assert_msg(scratch != NULL, "%s", err.text);
    struct moed_team *team = threads > 1 ? moed_team_new(threads) : NULL;
    if (team)
        team_fork_from(team, 0);
    forward_rows(model, scratch, team, rows, x, y);
    moed_team_free(team);
    moed_scratch_free(scratch);
}

static inline void expect_close(const float *values, const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const float limit = 1e-5f * fmaxf(1.0f, fabsf(expected[i]));
        const int same = values[i] == expected[i] || (isnan(values[i]) && isnan(expected[i])) ||
                         fabsf(values[i] - expected[i]) <= limit;
        ck_assert_msg(same, "[%zu] is %.9g, expected %.9g", i, (double)values[i],
                      (double)expected[i]);
    }
}

struct mapping {
    const char *shape, *layers;
    const struct stored *tensors;
    size_t count, rows;
    const float *x, *expected;
};

/* Expects the layers to map the rows of x to those of `expected`, in one batch and one row at a
 * time, without changing x. */
static inline void expect_mapping(const struct mapping *of)
{
    struct moed_model *model = load_layers(of->shape, of->layers, of->tensors, of->count);
    const size_t in = moed_model_info(model)->inputs[0].elements;
    const size_t out = moed_model_info(model)->outputs[0].elements;
    float *input = xmalloc(of->rows * in * sizeof *input), *y = xcalloc(of->rows * out, sizeof *y);
    memcpy(input, of->x, of->rows * in * sizeof *input);
    run_forward(model, 1, of->rows, input, y);
    expect_close(y, of->expected, of->rows * out);
    ck_assert_mem_eq(input, of->x, of->rows * in * sizeof *input);
    for (size_t row = 0; row < of->rows; row++) {
        run_forward(model, 1, 1, input + row * in, y);
        expect_close(y, of->expected + row * out, out);
    }
    free(y);
    free(input);
    moed_model_free(model);
}

/* expect_layers(shape, layers, tensors, count, rows, x, expected) */
#define expect_layers(...) expect_mapping(&(struct mapping){__VA_ARGS__})

#define FLOATS(...)                                                                                \
    (const float[])                                                                                \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* ---- sessions ---- */

/* A session for so many positions, and an arena that has no others. */
static inline struct moed_session *new_session(const struct moed_model *model, size_t positions,
                                               struct moed_pages **pages)
{
    struct error err = ERROR_INIT;
    *pages = moed_pages_new(model, &(struct moed_room){.positions = positions}, &err);
    ck_assert_msg(*pages != NULL, "%s", err.text);
    struct moed_session *session = moed_session_new(*pages);
    ck_assert_int_eq(moed_session_reserve(session, positions), 0);
    return session;
}

/* ---- numbers that are the same in every run ---- */

static inline uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Fills with small integers: sums of their products are exact in any order, so results can be
 * compared bit for bit. */
static inline void fill_integers(float *values, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(next_random(&seed) % 7) - 3.0f;
}

static inline float *new_integers(size_t count, uint32_t seed)
{
    float *values = xmalloc(count * sizeof *values);
    fill_integers(values, count, seed);
    return values;
}

/* ---- running ---- */

/* Under sanitizers, too, an allocation that is too large returns NULL, as from malloc. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static inline int run_suite(const char *name, TCase *tests)
{
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    if (!mkdtemp(support_root))
        return EXIT_FAILURE;
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    nftw(support_root, support_remove, 8, FTW_DEPTH | FTW_PHYS);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* main() of a test program: TEST_MAIN("gate", first_test, second_test) */
#define TEST_MAIN(name, ...) TEST_MAIN_WITH(name, NULL, NULL, __VA_ARGS__)

/* Like TEST_MAIN, with functions that run before and after every test. */
#define TEST_MAIN_WITH(name, begin, end, ...)                                                      \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const functions[] = {__VA_ARGS__};                                            \
        TCase *tests = tcase_create(name);                                                         \
        tcase_set_timeout(tests, TEST_SECONDS);                                                    \
        tcase_add_checked_fixture(tests, begin, end);                                              \
        for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)                          \
            tcase_add_test(tests, functions[i]);                                                   \
        return run_suite(name, tests);                                                             \
    }

#endif

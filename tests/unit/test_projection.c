/* Products whose outputs are shared out: parts together give the bits of the whole, with every
 * kernel and type of weights; large layers give the same with any number of threads. Which matrices
 * have how many bits. */
#include "core/layers/projection.h"
#include "core/model.h"
#include "support.h"

static const char *const kernels[] = {"avx512vnni", "avx512", "avxvnni", "avx2",
                                      "dotprod",    "neon",   "generic", "openblas"};
enum { KERNELS = sizeof kernels / sizeof *kernels };

static const struct precision PRECISIONS[] = {
    {0}, {.bits = 8}, {.bits = 4}, {.bits = 8, .inputs = MOED_ACTIVATIONS_F32}};

static void fill(float *values, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(next_random(&seed) % 2001) / 1000 - 1;
}

/* y starts as NaN, of which nothing may remain. */
static void check_parts(const struct gemm *gemm, const float *x, size_t rows, const float *bias)
{
    const size_t bytes = rows * gemm->n * sizeof(float);
    float *whole = xmalloc(bytes), *y = xmalloc(bytes);
    gemm_rows(gemm, x, rows, bias, whole);
    for (size_t parts = 1; parts <= 9; parts++) {
        size_t next = 0;
        memset(y, 0xff, bytes);
        for (size_t part = 0; part < parts; part++) {
            const struct columns_of columns = gemm_columns(gemm, part, parts);
            ck_assert_uint_eq(columns.first < columns.end ? columns.first : next, next);
            next = columns.first < columns.end ? columns.end : next;
            if (columns.first < columns.end)
                gemm_part(gemm, &columns, x, rows, bias, y);
        }
        ck_assert_uint_eq(next, gemm->n);
        ck_assert_msg(memcmp(y, whole, bytes) == 0, "%zu outputs, %zu rows, %zu parts", gemm->n,
                      rows, parts);
    }
    free(whole);
    free(y);
}

START_TEST(parts_give_the_bits_of_the_whole)
{
    enum { K = 37, MOST = 200, ROWS = 14 };
    static const size_t outputs[] = {1, 15, 16, 33, 130, MOST};
    static float w[MOST * K], x[ROWS * K], bias[MOST];
    setenv("MOED_KERNEL", kernels[_i], 1);
    if (strcmp(moed_kernel_name(), kernels[_i]) != 0 || strcmp(kernels[_i], "openblas") == 0)
        return; /* BLAS promises no bits */
    fill(w, MOST * K, 1);
    fill(x, ROWS * K, 2);
    fill(bias, MOST, 3);
    for (size_t i = 0; i < 4 * sizeof outputs / sizeof *outputs; i++) {
        struct gemm gemm;
        const size_t n = outputs[i / 4];
        const struct tensor tensor = {.name = "w",
                                      .dtype = DTYPE_F32,
                                      .rank = 2,
                                      .dims = {n, K},
                                      .elements = n * K,
                                      .data = w};
        const struct precision *precision = &PRECISIONS[i % 4];
        ck_assert_int_eq(gemm_init_rounded(&gemm, precision, &tensor, n, K, NULL), 0);
        for (size_t rows = 1; rows <= ROWS; rows += 1 + rows / 2)
            check_parts(&gemm, x, rows, rows % 2 ? bias : NULL);
        gemm_close(&gemm);
    }
}
END_TEST

#define LINEAR "[{'op':'relu'},{'op':'linear','name':'a'},{'op':'tanh'}]"
#define GLU    "[{'op':'glu','name':'a'}]"

static const struct {
    const char *layers;
    struct moed_load_options options;
} LARGE[] = {
    {LINEAR, {0}},
    {LINEAR, {.weights = MOED_WEIGHTS_INT8}},
    {LINEAR, {.weights = MOED_WEIGHTS_INT8, .activations = MOED_ACTIVATIONS_F32}},
    {GLU, {0}},
    {GLU, {.weights = MOED_WEIGHTS_INT4}},
    {"[{'op':'glu','name':'a','limit':3,'alpha':1.7,'shift':1},{'op':'relu'}]", {0}},
    {"[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}],'top_k':2},"
     "'experts':{'count':2,'layers':[{'op':'glu','name':'a'},{'op':'tanh'}]}}]",
     {0}},
};

enum { IN = 700, OUT = 3003, ROWS = 9 };

static struct moed_model *load_large(const char *list, const struct moed_load_options *options)
{
    struct error err = ERROR_INIT;
    static const char *const names[] = {"a.weight",
                                        "a.gate.weight",
                                        "a.up.weight",
                                        "m.experts.0.a.gate.weight",
                                        "m.experts.0.a.up.weight",
                                        "m.experts.1.a.gate.weight",
                                        "m.experts.1.a.up.weight",
                                        "m.gate.g.weight"};
    struct stored tensors[8];
    char *config = config_of("[700]", list), *newer = strstr(config, "'format_version':1");
    newer[strlen("'format_version':")] = '3';
    const size_t from = strstr(list, "moe") ? 3 : strstr(list, "glu") ? 1 : 0;
    const size_t count = from == 3 ? 5 : from == 1 ? 2 : 1;
    for (size_t i = 0; i < count; i++) {
        const size_t n = from + i == 7 ? 2 : OUT;
        float *values = xmalloc(n * IN * sizeof *values);
        fill(values, n * IN, (uint32_t)i);
        tensors[i] =
            (struct stored){.name = names[from + i], .rank = 2, .dims = {n, IN}, .values = values};
    }
    char *directory = new_directory();
    write_checkpoint(directory, config, tensors, count);
    struct moed_model *model = moed_model_load(directory, options, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    for (size_t i = 0; i < count; i++)
        free((float *)tensors[i].values);
    free(directory);
    free(config);
    return model;
}

START_TEST(threads_change_no_bit_of_a_large_layer)
{
    struct moed_model *model = load_large(LARGE[_i].layers, &LARGE[_i].options);
    float *x = xmalloc(ROWS * IN * sizeof *x);
    float *expected = xmalloc(ROWS * OUT * sizeof *x), *y = xmalloc(ROWS * OUT * sizeof *x);
    fill(x, ROWS * IN, 5);
    for (size_t row = 0; row < ROWS; row++)
        run_forward(model, 1, 1, x + row * IN, expected + row * OUT);
    for (unsigned threads = 1; threads <= 3; threads++)
        for (size_t rows = 1; rows <= ROWS; rows += 4) {
            memset(y, 0xff, ROWS * OUT * sizeof *y);
            run_forward(model, threads, rows, x, y);
            ck_assert_msg(memcmp(y, expected, rows * OUT * sizeof *y) == 0, "%u threads, %zu rows",
                          threads, rows);
        }
    free(x);
    free(y);
    free(expected);
    moed_model_free(model);
}
END_TEST

/* ---- where 4 bits are 8 ---- */

enum { SIDE = 32, MOST_RESIDUALS = 96, MATRICES = 3 };

struct residuals {
    char names[MATRICES * MOST_RESIDUALS][32];
    struct stored tensors[MATRICES * MOST_RESIDUALS];
    char list[64 * MOST_RESIDUALS * MATRICES];
};

/* So many residuals of a GLU and a linear layer, in 4 bits. */
static struct moed_model *load_residuals(size_t count)
{
    static float values[SIDE * SIDE];
    static const char *const of[MATRICES] = {"g%zu.gate.weight", "g%zu.up.weight", "l%zu.weight"};
    const struct moed_load_options options = {.weights = MOED_WEIGHTS_INT4};
    struct error err = ERROR_INIT;
    struct residuals *all = xcalloc(1, sizeof *all);
    size_t length = (size_t)sprintf(all->list, "[");
    for (size_t i = 0; i < count; i++) {
        length += (size_t)sprintf(all->list + length,
                                  "%s{'op':'residual','layers':[{'op':'glu','name':'g%zu'},"
                                  "{'op':'linear','name':'l%zu'}]}",
                                  i ? "," : "", i, i);
        for (size_t m = 0; m < MATRICES; m++) {
            size_t at = MATRICES * i + m;
            sprintf(all->names[at], of[m], i);
            all->tensors[at] = (struct stored){
                .name = all->names[at], .rank = 2, .dims = {SIDE, SIDE}, .values = values};
        }
    }
    strcat(all->list, "]");
    char *config = config_of("[32]", all->list), *directory = new_directory();
    strstr(config, "'format_version':1")[strlen("'format_version':")] = '3';
    write_checkpoint(directory, config, all->tensors, MATRICES * count);
    struct moed_model *model = moed_model_load(directory, &options, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    free(directory);
    free(config);
    free(all);
    return model;
}

static size_t matrix_bytes(enum integer_format format)
{
    struct rounded rounded = {.n = SIDE, .k = SIDE, .format = format};
    rounded_size(&rounded);
    return rounded.bytes;
}

START_TEST(the_outermost_residuals_have_six_bits_but_for_glus)
{
    static const struct {
        size_t residuals, outermost; /* at either end */
    } cases[] = {{1, 1}, {2, 2}, {4, 2}, {5, 2}, {8, 2}, {31, 2}, {32, 4}, {47, 4}, {96, 12}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t count = cases[i].residuals, few = cases[i].outermost;
        struct moed_model *model = load_residuals(count);
        for (size_t at = 0; at < count; at++) {
            bool outermost = at < few || at + few >= count;
            ck_assert_msg(model->chain.layers[at].cost.weight_bytes ==
                              2 * matrix_bytes(INTEGER_4) +
                                  matrix_bytes(outermost ? INTEGER_6 : INTEGER_4),
                          "%zu of %zu", at, count);
        }
        moed_model_free(model);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("projection");
    tcase_add_loop_test(tests, parts_give_the_bits_of_the_whole, 0, KERNELS);
    tcase_add_loop_test(tests, threads_change_no_bit_of_a_large_layer, 0,
                        sizeof LARGE / sizeof *LARGE);
    tcase_add_test(tests, the_outermost_residuals_have_six_bits_but_for_glus);
    tcase_set_timeout(tests, TEST_SECONDS);
    return run_suite("projection", tests);
}

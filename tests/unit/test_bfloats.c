/* Products of BF16 weights with inputs rounded alike. On a machine that has none, and with a kernel
 * that has none, inputs stay F32, and the same holds. */
#include <math.h>

#include "core/dense/gemm.h"
#include "core/half.h"
#include "core/moed.h"
#include "support.h"

static const char *const kernels[] = {"avx512vnni", "avx512", "avx2", "neon", "generic"};
enum { KERNELS = sizeof kernels / sizeof *kernels };

/* Each test has its own process, which chooses its kernel once. */
static bool use_kernel(int index)
{
    setenv("MOED_KERNEL", kernels[index], 1);
    return strcmp(moed_kernel_name(), kernels[index]) == 0;
}

/* The nearest BF16 as a float, ties to even. */
static float rounded(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return float_of_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000);
}

static float *new_numbers(size_t count, uint32_t state)
{
    float *values = xmalloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(next_random(&state) % 20001) / 10000 - 1;
    return values;
}

/* `weights` lose their lower halves. */
static void init(struct gemm *gemm, float *weights, size_t n, size_t k)
{
    struct error err = ERROR_INIT;
    const struct precision precision = {.inputs = MOED_ACTIVATIONS_BF16};
    uint16_t *halves = xmalloc(n * k * sizeof *halves);
    for (size_t i = 0; i < n * k; i++) {
        weights[i] = rounded(weights[i]);
        memcpy(&halves[i], (const char *)&weights[i] + 2, sizeof *halves);
    }
    const struct tensor tensor = {.name = "w",
                                  .dtype = DTYPE_BF16,
                                  .rank = 2,
                                  .dims = {n, k},
                                  .elements = n * k,
                                  .data = halves};
    ck_assert_msg(gemm_init_rounded(gemm, &precision, &tensor, n, k, &err) == 0, "%s", err.text);
    free(halves);
}

/* Small integers: exact in any order. y starts as NaN, of which nothing may remain. The blocks have
 * exactly their size, so that the sanitizer detects overruns. */
static void check_size(size_t n, size_t k, size_t rows)
{
    float *w = new_integers(n * k, (uint32_t)n), *x = new_integers(rows * k, (uint32_t)k);
    float *bias = rows % 2 ? new_integers(n, (uint32_t)rows) : NULL;
    float *y = xmalloc(rows * n * sizeof *y);
    struct gemm gemm;
    init(&gemm, w, n, k);
    memset(y, 0xff, rows * n * sizeof *y);
    gemm_rows(&gemm, x, rows, bias, y);
    for (size_t i = 0; i < rows * n; i++) {
        float sum = bias ? bias[i % n] : 0;
        for (size_t j = 0; j < k; j++)
            sum += w[i % n * k + j] * x[i / n * k + j];
        ck_assert_msg(y[i] == sum, "n %zu k %zu rows %zu: [%zu] is %g, expected %g", n, k, rows, i,
                      (double)y[i], (double)sum);
    }
    gemm_close(&gemm);
    free(w);
    free(x);
    free(bias);
    free(y);
}

START_TEST(products_of_every_small_size)
{
    static const size_t outputs[] = {1, 15, 16, 17, 31, 32, 33, 65, 130};
    static const size_t inputs[] = {1, 2, 3, 15, 16, 17, 32, 37};
    if (!use_kernel(_i))
        return;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        for (size_t j = 0; j < sizeof inputs / sizeof *inputs; j++)
            for (size_t rows = 1; rows <= 26; rows++)
                check_size(outputs[i], inputs[j], rows);
}
END_TEST

START_TEST(products_in_blocks_of_inputs_and_rows)
{
    if (!use_kernel(_i))
        return;
    check_size(40, 9001, 29);
    check_size(3, 70001, 1);
    check_size(3, 1, 5000);
    check_size(70, 1500, 200);
}
END_TEST

/* Of what was rounded, and of nothing else. */
START_TEST(inputs_are_rounded_to_the_nearest)
{
    enum { N = 35, K = 3301, ROWS = 29 };
    static float y[ROWS * N];
    if (!use_kernel(_i))
        return;
    float *w = new_numbers((size_t)N * K, 5), *x = new_numbers((size_t)ROWS * K, 6);
    struct gemm gemm;
    init(&gemm, w, N, K);
    gemm_rows(&gemm, x, ROWS, NULL, y);
    for (size_t i = 0; i < (size_t)ROWS * N; i++) {
        double sum = 0, size = 0;
        for (size_t j = 0; j < K; j++) {
            const float input = x[i / N * K + j];
            const double product = (double)w[i % N * K + j] *
                                   (double)(moed_multiplies_bf16() ? rounded(input) : input);
            sum += product;
            size += fabs(product);
        }
        ck_assert_double_eq_tol((double)y[i], sum, 1e-6 * size);
    }
    gemm_close(&gemm);
    free(w);
    free(x);
}
END_TEST

START_TEST(a_row_has_the_same_bits_in_every_batch_and_part)
{
    enum { N = 70, K = 3501, ROWS = 101 };
    static float all[ROWS * N], y[ROWS * N];
    if (!use_kernel(_i))
        return;
    float *w = new_numbers((size_t)N * K, 7), *x = new_numbers((size_t)ROWS * K, 8);
    struct gemm gemm;
    init(&gemm, w, N, K);
    gemm_rows(&gemm, x, ROWS, NULL, all);
    for (size_t first = 0; first < ROWS; first += 9)
        for (size_t rows = 1; first + rows <= ROWS; rows += 1 + rows / 8) {
            memset(y, 0xff, sizeof y);
            for (size_t part = 0; part < 3; part++) {
                const struct columns_of columns = gemm_columns(&gemm, part, 3);
                gemm_part(&gemm, &columns, x + first * K, rows, NULL, y);
            }
            ck_assert_msg(memcmp(y, all + first * N, rows * N * sizeof *y) == 0,
                          "rows [%zu, %zu) differ from the whole batch", first, first + rows);
        }
    gemm_close(&gemm);
    free(w);
    free(x);
}
END_TEST

START_TEST(what_is_not_finite_stays_in_its_row)
{
    float w[2 * 3] = {1, 2, 3, 4, 5, 6}, y[6];
    if (!use_kernel(_i))
        return;
    struct gemm gemm;
    init(&gemm, w, 2, 3);
    gemm_rows(&gemm, FLOATS(1, 1, 1, 1, NAN, 1, 1, 1, INFINITY), 3, NULL, y);
    ck_assert(y[0] == 6 && y[1] == 15);
    ck_assert(isnan(y[2]) && isnan(y[3]) && isinf(y[4]) && isinf(y[5]));
    gemm_close(&gemm);
}
END_TEST

/* Weights of other types, and those of gates, are multiplied as ever. */
START_TEST(only_bfloats_are_multiplied_so)
{
    const struct precision precisions[] = {{.inputs = MOED_ACTIVATIONS_BF16}, {0}};
    const float w[1] = {1};
    const uint16_t halves[1] = {0x3f80};
    struct tensor tensors[2] = {{.name = "f32", .dtype = DTYPE_F32, .data = w},
                                {.name = "bf16", .dtype = DTYPE_BF16, .data = halves}};
    if (!use_kernel(_i))
        return;
    for (size_t i = 0; i < 2; i++) {
        struct tensor *tensor = &tensors[i];
        tensor->rank = 2;
        tensor->dims[0] = tensor->dims[1] = tensor->elements = 1;
        struct gemm gemm;
        float y;
        ck_assert_int_eq(gemm_init_rounded(&gemm, &precisions[i], tensor, 1, 1, NULL), 0);
        gemm_rows(&gemm, FLOATS(1.00390625f), 1, NULL, &y);
        ck_assert_float_eq(y, 1.00390625f);
        gemm_close(&gemm);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bfloats");
    tcase_set_timeout(tests, TEST_SECONDS);
    tcase_add_loop_test(tests, products_of_every_small_size, 0, KERNELS);
    tcase_add_loop_test(tests, products_in_blocks_of_inputs_and_rows, 0, KERNELS);
    tcase_add_loop_test(tests, inputs_are_rounded_to_the_nearest, 0, KERNELS);
    tcase_add_loop_test(tests, a_row_has_the_same_bits_in_every_batch_and_part, 0, KERNELS);
    tcase_add_loop_test(tests, what_is_not_finite_stays_in_its_row, 0, KERNELS);
    tcase_add_loop_test(tests, only_bfloats_are_multiplied_so, 0, KERNELS);
    return run_suite("bfloats", tests);
}

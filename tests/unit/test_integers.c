/* Weights in 8, 6 and 4 bits and FP4: the bits of their products are those of the formula in
 * core/dense/integers.h, computed here one number at a time, with every kernel of this machine. */
#include <float.h>
#include <math.h>

#include "core/dense/gemm.h"
#include "core/moed.h"
#include "support.h"

static const char *const kernels[] = {"avx512vnni", "avx512", "avxvnni", "avx2",
                                      "dotprod",    "neon",   "generic", "openblas"};
enum { KERNELS = sizeof kernels / sizeof *kernels, GROUP = 32 };

/* Each test has its own process, which chooses its kernel once. */
static bool use_kernel(int index)
{
    setenv("MOED_KERNEL", kernels[index], 1);
    return strcmp(moed_kernel_name(), kernels[index]) == 0;
}

/* Bits of weights, or those of MXFP4. */
enum { FP4 = 2 };

static struct tensor tensor_of(size_t n, size_t k, const float *data)
{
    return (struct tensor){.name = "w",
                           .dtype = DTYPE_F32,
                           .rank = 2,
                           .dims = {n, k},
                           .elements = n * k,
                           .data = data};
}

static void init(struct gemm *gemm, unsigned bits, enum moed_activations inputs,
                 const struct tensor *weights)
{
    struct error err = ERROR_INIT;
    const struct precision precision = {.bits = bits == FP4 ? 4 : bits, .inputs = inputs};
    struct tensor tensor = *weights;
    tensor.fp4 = bits == FP4;
    ck_assert_msg(
        gemm_init_rounded(gemm, &precision, &tensor, tensor.dims[0], tensor.dims[1], &err) == 0,
        "%s", err.text);
}

/* ---- the formula ---- */

/* Numbers that are integers times a power of two already: what rounding must find again. The
 * largest of a group has the largest integer, 127, 31, -8 or 12. */
struct integers {
    size_t rows, k;
    int *integers; /* [rows, k] */
    float *scales; /* [rows, groups] */
    float *values; /* [rows, k] */
};

static size_t groups_of(size_t k)
{
    return (k + GROUP - 1) / GROUP;
}

static int random_integer(unsigned bits, bool largest, uint32_t *state)
{
    static const int magnitudes[] = {0, 1, 2, 3, 4, 6, 8, 12};
    int random = (int)(next_random(state) % 255) - 127;
    switch (bits) {
    case 8:
        return largest ? 127 : random;
    case 6:
        return largest ? 31 : random % 32;
    case 4:
        return largest ? -8 : random % 8;
    default:
        return largest ? 12 : magnitudes[abs(random) % 8] * (random < 0 ? -1 : 1);
    }
}

static struct integers new_rounded(size_t rows, size_t k, unsigned bits, uint32_t state)
{
    struct integers made = {.rows = rows, .k = k};
    made.integers = xcalloc(rows * k, sizeof *made.integers);
    made.scales = xcalloc(rows * groups_of(k), sizeof *made.scales);
    made.values = xcalloc(rows * k, sizeof *made.values);
    for (size_t i = 0; i < rows * k; i++) {
        size_t group = i / k * groups_of(k) + i % k / GROUP;
        bool begins = i % k % GROUP == 0;
        if (begins) /* a row's groups differ, and one is zero now and then */
            made.scales[group] =
                next_random(&state) % 8 == 0 ? 0 : ldexpf(1, (int)(next_random(&state) % 9) - 12);
        int integer = random_integer(bits, begins, &state);
        made.integers[i] = made.scales[group] > 0 ? integer : 0;
        made.values[i] = (float)made.integers[i] * made.scales[group];
    }
    return made;
}

static void free_rounded(struct integers *made)
{
    free(made->integers);
    free(made->scales);
    free(made->values);
}

static float by_hand(const struct integers *x, size_t row, const struct integers *w, size_t output,
                     float sum)
{
    for (size_t g = 0; g < groups_of(x->k); g++) {
        int exact = 0;
        for (size_t k = g * GROUP; k < x->k && k < (g + 1) * GROUP; k++)
            exact += x->integers[row * x->k + k] * w->integers[output * x->k + k];
        sum = fmaf((float)exact * x->scales[row * groups_of(x->k) + g],
                   w->scales[output * groups_of(x->k) + g], sum);
    }
    return sum;
}

/* y starts as NaN, of which nothing may remain. */
static void check_size(unsigned bits, size_t n, size_t k, size_t rows)
{
    struct integers w = new_rounded(n, k, bits, (uint32_t)(n + 1));
    struct integers x = new_rounded(rows, k, 8, (uint32_t)(rows + 1));
    float *bias = rows % 2 ? new_integers(n, 3) : NULL, *y = xmalloc(rows * n * sizeof *y);
    const struct tensor tensor = tensor_of(n, k, w.values);
    struct gemm gemm;
    init(&gemm, bits, MOED_ACTIVATIONS_INT8, &tensor);
    memset(y, 0xff, rows * n * sizeof *y);
    gemm_rows(&gemm, x.values, rows, bias, y);
    for (size_t i = 0; i < rows * n; i++) {
        float expected = by_hand(&x, i / n, &w, i % n, bias ? bias[i % n] : 0);
        ck_assert_msg(memcmp(&y[i], &expected, sizeof expected) == 0,
                      "%u bits, n %zu k %zu rows %zu: [%zu] is %g, expected %g", bits, n, k, rows,
                      i, (double)y[i], (double)expected);
    }
    gemm_close(&gemm);
    free(bias);
    free(y);
    free_rounded(&x);
    free_rounded(&w);
}

#ifdef MOED_SANITIZED
enum { ROWS_STEP = 4 };
#else
enum { ROWS_STEP = 1 };
#endif

START_TEST(products_have_the_bits_of_the_formula)
{
    static const size_t outputs[] = {1, 7, 8, 17, 33, 66}, inputs[] = {1, 31, 32, 33, 130};
    if (!use_kernel(_i))
        return;
    for (unsigned bits = FP4; bits <= 8; bits += 2) {
        for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
            for (size_t j = 0; j < sizeof inputs / sizeof *inputs; j++)
                for (size_t rows = 1; rows <= 17; rows += ROWS_STEP)
                    check_size(bits, outputs[i], inputs[j], rows);
        check_size(bits, 33, 1100, 70); /* blocks of rows, and of inputs */
        check_size(bits, 5, 17000, 1);
    }
}
END_TEST

/* ---- any numbers ---- */

enum { N = 67, K = 1130, ROWS = 70 };

static float *new_numbers(size_t count, uint32_t state)
{
    float *values = xmalloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = ((float)(next_random(&state) % 2001) / 1000 - 1) * (float)(i % 7);
    return values;
}

static uint32_t checksum(const float *y, size_t count)
{
    uint32_t sum = 2166136261u;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], sizeof bits);
        sum = (sum ^ bits) * 16777619u;
    }
    return sum;
}

START_TEST(a_row_has_the_same_bits_in_every_batch)
{
    float *w = new_numbers((size_t)N * K, 7), *x = new_numbers((size_t)ROWS * K, 13);
    static float all[ROWS * N], y[ROWS * N];
    const struct tensor tensor = tensor_of(N, K, w);
    for (unsigned bits = 4; bits <= 8 && use_kernel(_i); bits += 2) {
        struct gemm gemm;
        init(&gemm, bits, MOED_ACTIVATIONS_INT8, &tensor);
        gemm_rows(&gemm, x, ROWS, NULL, all);
        for (size_t first = 0; first < ROWS; first += 13)
            for (size_t rows = 1; first + rows <= ROWS; rows += 1 + rows / 8) {
                gemm_rows(&gemm, x + first * K, rows, NULL, y);
                ck_assert_msg(memcmp(y, all + first * N, rows * N * sizeof *y) == 0,
                              "%u bits: rows [%zu, %zu) differ from the whole batch", bits, first,
                              first + rows);
            }
        gemm_close(&gemm);
    }
    free(w);
    free(x);
}
END_TEST

/* Rounding gives the same bits on every machine, too: these checksums were computed once. */
START_TEST(kernels_give_the_same_bits)
{
    static const uint32_t sums[] = {936788164u, 2966663483u, 1049095477u};
    float *w = new_numbers((size_t)N * K, 7), *x = new_numbers((size_t)ROWS * K, 13);
    static float y[ROWS * N];
    const struct tensor tensor = tensor_of(N, K, w);
    for (unsigned bits = 4; bits <= 8 && use_kernel(_i); bits += 2) {
        struct gemm gemm;
        init(&gemm, bits, MOED_ACTIVATIONS_INT8, &tensor);
        gemm_rows(&gemm, x, ROWS, NULL, y);
        ck_assert_uint_eq(checksum(y, ROWS * N), sums[bits / 2 - 2]);
        gemm_close(&gemm);
    }
    free(w);
    free(x);
}
END_TEST

/* Relative to the largest numbers: weights and inputs are off by half an integer at most. */
static void check_distance(unsigned bits, enum moed_activations inputs, double most)
{
    float *w = new_numbers((size_t)N * K, 7), *x = new_numbers((size_t)ROWS * K, 13);
    static float y[ROWS * N];
    const struct tensor tensor = tensor_of(N, K, w);
    struct gemm gemm;
    double off = 0, square = 0;
    init(&gemm, bits, inputs, &tensor);
    gemm_rows(&gemm, x, ROWS, NULL, y);
    for (size_t i = 0; i < ROWS * N; i++) {
        double sum = 0;
        for (size_t k = 0; k < K; k++)
            sum += (double)x[i / N * K + k] * (double)w[i % N * K + k];
        off += (sum - (double)y[i]) * (sum - (double)y[i]);
        square += sum * sum;
    }
    ck_assert_msg(off > 0 && off < most * most * square, "%u bits: off by %g, expected %g", bits,
                  sqrt(off / square), most);
    gemm_close(&gemm);
    free(w);
    free(x);
}

START_TEST(products_are_near_what_they_round)
{
    if (!use_kernel(_i))
        return;
    check_distance(8, MOED_ACTIVATIONS_INT8, 0.009);
    check_distance(8, MOED_ACTIVATIONS_F32, 0.007);
    check_distance(6, MOED_ACTIVATIONS_INT8, 0.03);
    check_distance(6, MOED_ACTIVATIONS_F32, 0.03);
    check_distance(4, MOED_ACTIVATIONS_INT8, 0.09);
    check_distance(4, MOED_ACTIVATIONS_F32, 0.09);
}
END_TEST

/* Weights that rounding finds again: what is left is the order of a sum, of several blocks of
 * inputs. */
START_TEST(f32_inputs_meet_each_weight_with_its_scale)
{
    enum { OUTPUTS = 35, INPUTS = 3300, BATCH = 29 };
    static float y[BATCH * OUTPUTS], alone[OUTPUTS];
    float *x = new_numbers((size_t)BATCH * INPUTS, 5);
    for (unsigned bits = FP4; bits <= 8 && use_kernel(_i); bits += 2) {
        struct integers w = new_rounded(OUTPUTS, INPUTS, bits, 9);
        const struct tensor tensor = tensor_of(OUTPUTS, INPUTS, w.values);
        struct gemm gemm;
        init(&gemm, bits, MOED_ACTIVATIONS_F32, &tensor);
        gemm_rows(&gemm, x, BATCH, NULL, y);
        for (size_t i = 0; i < BATCH * OUTPUTS; i++) {
            double sum = 0, size = 0;
            for (size_t k = 0; k < INPUTS; k++) {
                double product = (double)x[i / OUTPUTS * INPUTS + k] *
                                 (double)w.values[i % OUTPUTS * INPUTS + k];
                sum += product;
                size += fabs(product);
            }
            ck_assert_double_eq_tol((double)y[i], sum, 1e-5 * size);
        }
        for (size_t row = 0; row < BATCH && strcmp(kernels[_i], "openblas") != 0; row++) {
            gemm_rows(&gemm, x + row * INPUTS, 1, NULL, alone);
            ck_assert_mem_eq(alone, y + row * OUTPUTS, sizeof alone);
        }
        gemm_close(&gemm);
        free_rounded(&w);
    }
    free(x);
}
END_TEST

START_TEST(fewer_bits_take_less_memory)
{
    static float w[64 * 64];
    const struct tensor tensor = tensor_of(64, 64, w);
    struct gemm eight, six, four, fp4;
    if (!use_kernel(_i))
        return;
    init(&eight, 8, MOED_ACTIVATIONS_INT8, &tensor);
    init(&six, 6, MOED_ACTIVATIONS_INT8, &tensor);
    init(&four, 4, MOED_ACTIVATIONS_INT8, &tensor);
    init(&fp4, FP4, MOED_ACTIVATIONS_INT8, &tensor);
    ck_assert_uint_eq(eight.bytes, 64 * 2 * (GROUP + 2));
    ck_assert_uint_eq(six.bytes, 64 * 2 * (GROUP * 3 / 4 + 2));
    ck_assert_uint_eq(four.bytes, 64 * 2 * (GROUP / 2 + 2));
    ck_assert_uint_eq(fp4.bytes, four.bytes);
    gemm_close(&eight);
    gemm_close(&six);
    gemm_close(&four);
    gemm_close(&fp4);
}
END_TEST

/* ---- extremes ---- */

START_TEST(the_smallest_are_zero_and_the_largest_are_held)
{
    const struct tensor tensor =
        tensor_of(3, 2, FLOATS(1e-45f, -2e-38f, FLT_MAX, -FLT_MAX, -0.5f, 1));
    float y[6];
    for (unsigned bits = 4; bits <= 8 && use_kernel(_i); bits += 2) {
        struct gemm gemm;
        init(&gemm, bits, MOED_ACTIVATIONS_INT8, &tensor);
        gemm_rows(&gemm, FLOATS(1, 1, 1e-44f, 0), 2, NULL, y);
        ck_assert(y[0] == 0 && y[3] == 0 && y[5] == 0);
        ck_assert_float_le(fabsf(y[1]), FLT_MAX / 4);
        ck_assert_float_le(fabsf(y[2] - 0.5f), 0.1f);
        gemm_close(&gemm);
    }
}
END_TEST

START_TEST(inputs_that_are_not_finite_give_nan)
{
    static const float w[2 * 40] = {[0] = 1, [45] = 2};
    const struct tensor tensor = tensor_of(2, 40, w);
    float x[3 * 40] = {1, [40 + 35] = NAN, [80] = INFINITY}, y[6];
    for (unsigned bits = 4; bits <= 8 && use_kernel(_i); bits += 2) {
        struct gemm gemm;
        init(&gemm, bits, MOED_ACTIVATIONS_INT8, &tensor);
        gemm_rows(&gemm, x, 3, NULL, y);
        ck_assert(fabsf(y[0] - 1) < 0.01f && y[1] == 0);
        for (size_t i = 2; i < 6; i++)
            ck_assert(isnan(y[i]));
        gemm_close(&gemm);
    }
}
END_TEST

/* A group's largest number may be any of them, and its scale any power of two. */
START_TEST(what_mxfp4_holds_is_kept_exactly)
{
    static const float numbers[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const float one = 1;
    if (!use_kernel(_i))
        return;
    for (size_t largest = 1; largest < 8; largest++)
        for (int exponent = -90; exponent <= 90; exponent += 9) {
            float w[GROUP], y[GROUP], x[GROUP * GROUP] = {0};
            for (size_t i = 0; i < GROUP; i++) {
                w[i] = ldexpf(numbers[i % (largest + 1)], exponent) * (i % 3 ? 1 : -1);
                x[i * GROUP + i] = one;
            }
            const struct tensor tensor = tensor_of(1, GROUP, w);
            for (int inputs = 0; inputs < 2; inputs++) {
                struct gemm gemm;
                init(&gemm, FP4, inputs ? MOED_ACTIVATIONS_F32 : MOED_ACTIVATIONS_INT8, &tensor);
                gemm_rows(&gemm, x, GROUP, NULL, y);
                for (size_t i = 0; i < GROUP; i++)
                    ck_assert_msg(fabsf(y[i] - w[i]) <= 1e-6f * fabsf(w[i]), "%g times 2^%d is %g",
                                  (double)numbers[i % (largest + 1)], exponent, (double)y[i]);
                gemm_close(&gemm);
            }
        }
}
END_TEST

START_TEST(weights_that_are_not_finite_are_refused)
{
    static const float bad[] = {1, 2, NAN, 0, INFINITY, 0};
    if (!use_kernel(_i))
        return;
    for (size_t i = 0; i < 8; i++) {
        const struct tensor tensor = tensor_of(1, 4, bad + i % 2 * 2);
        struct error err = ERROR_INIT;
        struct gemm gemm;
        const struct precision precision = {
            .bits = i & 2 ? 4 : 8, .inputs = i & 4 ? MOED_ACTIVATIONS_F32 : MOED_ACTIVATIONS_INT8};
        ck_assert_int_ne(gemm_init_rounded(&gemm, &precision, &tensor, 1, 4, &err), 0);
        ck_assert_ptr_nonnull(strstr(err.text, "output 0 are not all finite"));
        gemm_close(&gemm);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("integers");
    tcase_set_timeout(tests, TEST_SECONDS);
    tcase_add_loop_test(tests, products_have_the_bits_of_the_formula, 0, KERNELS);
    tcase_add_loop_test(tests, a_row_has_the_same_bits_in_every_batch, 0, KERNELS);
    tcase_add_loop_test(tests, kernels_give_the_same_bits, 0, KERNELS);
    tcase_add_loop_test(tests, products_are_near_what_they_round, 0, KERNELS);
    tcase_add_loop_test(tests, f32_inputs_meet_each_weight_with_its_scale, 0, KERNELS);
    tcase_add_loop_test(tests, what_mxfp4_holds_is_kept_exactly, 0, KERNELS);
    tcase_add_loop_test(tests, fewer_bits_take_less_memory, 0, KERNELS);
    tcase_add_loop_test(tests, the_smallest_are_zero_and_the_largest_are_held, 0, KERNELS);
    tcase_add_loop_test(tests, inputs_that_are_not_finite_give_nan, 0, KERNELS);
    tcase_add_loop_test(tests, weights_that_are_not_finite_are_refused, 0, KERNELS);
    return run_suite("integers", tests);
}

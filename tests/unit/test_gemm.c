/* Dense algebra and the linear layer, with every kernel that this machine can run. Results that are
 * compared exactly come from small integers, whose sums are the same in any order. */
#include <dlfcn.h>

#include "core/dense/gemm.h"
#include "core/dense/kernel.h"
#include "core/load/safetensors.h"
#include "core/moed.h"
#include "support.h"

static const char *const kernels[] = {"avx512", "avx2", "neon", "generic", "openblas"};
enum { KERNELS = sizeof kernels / sizeof *kernels, GENERIC = 3, OPENBLAS = 4 };

/* Each test has its own process, which chooses its kernel once. */
static bool use_kernel(int index)
{
    setenv("MOED_KERNEL", kernels[index], 1);
    return strcmp(moed_kernel_name(), kernels[index]) == 0;
}

static struct tensor tensor_of(enum dtype dtype, size_t n, size_t k, const void *data)
{
    return (struct tensor){
        .name = "w", .dtype = dtype, .rank = 2, .dims = {n, k}, .elements = n * k, .data = data};
}

static void init(struct gemm *gemm, const struct tensor *tensor)
{
    struct error err = ERROR_INIT;
    int result = gemm_init(gemm, tensor, tensor->dims[0], tensor->dims[1], &err);
    ck_assert_msg(result == 0, "%s", err.text);
}

/* `w` is of DTYPE_F32. */
static void multiply_by_hand(const struct tensor *w, const float *x, size_t rows, const float *bias,
                             float *y)
{
    size_t n = w->dims[0], k = w->dims[1];
    const float *weights = w->data;
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < n; i++) {
            double sum = bias ? bias[i] : 0;
            for (size_t j = 0; j < k; j++)
                sum += (double)weights[i * k + j] * x[row * k + j];
            y[row * n + i] = (float)sum;
        }
}

/* BF16 from the upper halves of floats: exact for small integers. */
static uint16_t *new_bf16(const float *values, size_t count)
{
    uint16_t *halves = xmalloc(count * sizeof *halves);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16);
    }
    return halves;
}

static void multiply(const struct tensor *tensor, const float *x, size_t rows, const float *bias,
                     const float *expected)
{
    const size_t n = tensor->dims[0], k = tensor->dims[1];
    float *y = xmalloc(rows * n * sizeof *y);
    struct gemm gemm;
    init(&gemm, tensor);
    memset(y, 0xff, rows * n * sizeof *y);
    gemm_rows(&gemm, x, rows, bias, y);
    for (size_t i = 0; i < rows * n; i++)
        if (y[i] != expected[i])
            ck_abort_msg("dtype %d n %zu k %zu rows %zu: [%zu] is %g, expected %g",
                         (int)tensor->dtype, n, k, rows, i, (double)y[i], (double)expected[i]);
    gemm_close(&gemm);
    free(y);
}

/* y starts as NaN, of which nothing may remain. The blocks have exactly their size, so that the
 * sanitizer detects overruns. */
static void check_size(size_t n, size_t k, size_t rows, bool with_bias)
{
    float *w = new_integers(n * k, (uint32_t)n), *x = new_integers(rows * k, (uint32_t)k);
    float *bias = with_bias ? new_integers(n, (uint32_t)rows) : NULL;
    float *expected = xmalloc(rows * n * sizeof *expected);
    uint16_t *halves = new_bf16(w, n * k);
    const struct tensor wide = tensor_of(DTYPE_F32, n, k, w),
                        narrow = tensor_of(DTYPE_BF16, n, k, halves);
    multiply_by_hand(&wide, x, rows, bias, expected);
    multiply(&wide, x, rows, bias, expected);
    multiply(&narrow, x, rows, bias, expected);
    free(w);
    free(halves);
    free(x);
    free(bias);
    free(expected);
}

START_TEST(products_of_every_small_size)
{
    static const size_t outputs[] = {1, 2, 7, 15, 16, 17, 31, 33, 64, 65, 127, 130};
    static const size_t inputs[] = {1, 3, 37};
    if (!use_kernel(_i))
        return;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        for (size_t j = 0; j < sizeof inputs / sizeof *inputs; j++)
            for (size_t rows = 1; rows <= 26; rows++)
                check_size(outputs[i], inputs[j], rows, (i + j + rows) % 2);
}
END_TEST

/* Enough inputs that weights are read in blocks, few enough that blocks are whole panels. */
START_TEST(products_beyond_one_cache)
{
    if (!use_kernel(_i))
        return;
    check_size(40, 9000, 29, true);
    check_size(3, 1, 5000, false);
    check_size(700, 300, 70, true);
}
END_TEST

START_TEST(a_product_known_by_heart)
{
    if (!use_kernel(_i))
        return;
    const struct tensor tensor = tensor_of(DTYPE_F32, 2, 3, FLOATS(1, 2, 3, -1, 0, 0.5f));
    struct gemm gemm;
    float y[4];
    init(&gemm, &tensor);
    gemm_rows(&gemm, FLOATS(1, 1, 1, 2, 0, -2), 2, FLOATS(10, 20), y);
    expect_close(y, FLOATS(16, 19.5f, 6, 17), 4);
    gemm_close(&gemm);
}
END_TEST

/* For a processor that OpenBLAS does not know it would use the code of an older one, which is half
 * as fast. */
START_TEST(openblas_knows_the_processor)
{
#ifdef __x86_64__
    if (!use_kernel(OPENBLAS) || !__builtin_cpu_supports("avx2"))
        return;
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_NOLOAD);
    ck_assert_msg(library != NULL, "%s", dlerror());
    char *(*core_name)(void);
    *(void **)&core_name = dlsym(library, "openblas_get_corename");
    const char *const core = core_name();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
    static const char *const older[] = {"Prescott", "Core2", "Nehalem", "Sandybridge", "Barcelona"};
    for (size_t i = 0; i < sizeof older / sizeof *older; i++)
        ck_assert_str_ne(core, older[i]);
    if (wide)
        ck_assert_str_eq(core, "SkylakeX");
    dlclose(library);
#endif
}
END_TEST

START_TEST(openblas_is_loaded_only_when_asked_for)
{
    ck_assert(use_kernel(GENERIC));
    ck_assert_ptr_null(dlopen("libopenblas.so.0", RTLD_NOW | RTLD_NOLOAD));
}
END_TEST

/* A row's bits do not depend on its batch: the guarantee of reproducible predictions. OpenBLAS
 * cannot give it. */
static void check_bits(size_t k)
{
    enum { N = 70, K = 3500, ROWS = 31 };
    static float w[N * K], x[ROWS * K], all[ROWS * N], y[ROWS * N];
    uint32_t state = 1;
    for (size_t i = 0; i < N * K; i++)
        w[i] = (float)next_random(&state) * 1e-7f - 0.8f;
    for (size_t i = 0; i < ROWS * K; i++)
        x[i] = (float)next_random(&state) * 1e-7f - 0.8f;
    const struct tensor tensor = tensor_of(DTYPE_F32, N, k, w);
    struct gemm gemm;
    init(&gemm, &tensor);
    gemm_rows(&gemm, x, ROWS, NULL, all);
    for (size_t first = 0; first < ROWS; first++)
        for (size_t rows = 1; first + rows <= ROWS; rows++) {
            gemm_rows(&gemm, x + first * k, rows, NULL, y);
            if (memcmp(y, all + first * N, rows * N * sizeof *y) != 0)
                ck_abort_msg("k %zu: rows [%zu, %zu) differ from the whole batch", k, first,
                             first + rows);
        }
    gemm_close(&gemm);
}

START_TEST(a_row_has_the_same_bits_in_every_batch)
{
    if (!use_kernel(_i) || strcmp(kernels[_i], "openblas") == 0)
        return;
    check_bits(123);
    check_bits(3500); /* in blocks */
}
END_TEST

START_TEST(half_precision_weights_are_exact)
{
    /* 1, -2, 0.5, 3 and a subnormal where there is one */
    static const uint16_t f16[] = {0x3c00, 0xc000, 0x3800, 0x4200, 0x0001, 0x0000};
    static const uint16_t bf16[] = {0x3f80, 0xc000, 0x3f00, 0x4040, 0x0000, 0x0000};
    if (!use_kernel(_i))
        return;
    char odd[sizeof f16 + 1];
    for (int pass = 0; pass < 4; pass++) {
        memcpy(odd + pass / 2, pass % 2 ? f16 : bf16, sizeof f16);
        const struct tensor tensor =
            tensor_of(pass % 2 ? DTYPE_F16 : DTYPE_BF16, 3, 2, odd + pass / 2);
        struct gemm gemm;
        float y[6];
        init(&gemm, &tensor);
        gemm_rows(&gemm, FLOATS(1, 1, 16777216, 0), 2, NULL, y);
        expect_close(y,
                     FLOATS(-1, 3.5f, pass % 2 ? 5.9604645e-8f : 0.0f, 16777216, 8388608,
                            pass % 2 ? 1.0f : 0.0f),
                     6);
        gemm_close(&gemm);
    }
}
END_TEST

/* Every number of FP8, subnormals too, with scales of any power: the bits are those of F32 weights.
 */
static void check_fp8(size_t n, size_t k, size_t rows)
{
    const size_t groups = (k + SCALED_GROUP - 1) / SCALED_GROUP;
    uint8_t *codes = xmalloc(n * k);
    float *scales = xmalloc(n * groups * sizeof *scales), *x = new_integers(rows * k, 1);
    float *numbers = xmalloc(n * k * sizeof *numbers), *y = xmalloc(2 * rows * n * sizeof *y);
    for (size_t i = 0; i < n * k; i++)
        codes[i] = (uint8_t)(i * 37 % 127 + (i & 128));
    for (size_t i = 0; i < n * groups; i++)
        scales[i] = ldexpf(1.1f + (float)i, (int)(i % 60) - 30) * (i % 3 ? 1 : -1);
    struct tensor small = tensor_of(DTYPE_F8_E4M3, n, k, codes);
    small.scales = scales;
    tensor_to_f32(&small, numbers);
    const struct tensor large = tensor_of(DTYPE_F32, n, k, numbers);
    struct gemm kept, floats;
    init(&kept, &small);
    init(&floats, &large);
    gemm_rows(&kept, x, rows, NULL, y);
    gemm_rows(&floats, x, rows, NULL, y + rows * n);
    ck_assert_mem_eq(y, y + rows * n, rows * n * sizeof *y);
    if (kept.kernel->reads_f8 && n % kept.panel == 0)
        ck_assert_uint_eq(kept.bytes, n * (k + groups * sizeof *scales));
    gemm_close(&kept);
    gemm_close(&floats);
    free(codes);
    free(scales);
    free(x);
    free(numbers);
    free(y);
}

START_TEST(fp8_weights_stay_and_are_exact)
{
    if (!use_kernel(_i))
        return;
    for (size_t rows = 1; rows < 14; rows++) {
        check_fp8(32, 128, rows);
        check_fp8(77, 45, rows);
    }
    check_fp8(64, 3200, 40); /* in blocks */
}
END_TEST

/* One after the other in a block, or in one of their own if they are small or too large for it. */
START_TEST(matrices_of_a_model_lie_side_by_side)
{
    enum { SMALL = 1000, LARGE = 300000, HUGE = 40 << 20 };
    static const size_t sizes[] = {LARGE, SMALL, LARGE, HUGE, LARGE};
    struct panels_store store = {0};
    char *panels[5];
    for (size_t i = 0; i < 5; i++) {
        panels[i] = panels_new(&store, sizes[i]);
        ck_assert_ptr_nonnull(panels[i]);
        ck_assert_uint_eq((uintptr_t)panels[i] % PANEL_ALIGNMENT, 0);
        memset(panels[i], 1, 1000);
    }
    size_t step = (LARGE + PANEL_ALIGNMENT - 1) / PANEL_ALIGNMENT * PANEL_ALIGNMENT;
    ck_assert_ptr_eq(panels[2], panels[0] + step);
    ck_assert_ptr_eq(panels[4], panels[2] + step);
    for (size_t i = 0; i < 200; i++) { /* more than a block */
        char *more = panels_new(&store, LARGE);
        ck_assert_ptr_nonnull(more);
        memset(more + LARGE - 1, 1, 1);
    }
    ck_assert_uint_eq(store.count, 4);
    panels_store_close(&store);
}
END_TEST

static void *block_of(struct panels_store *store)
{
    enum { LARGE = 300000 };
    void *panels = panels_new(store, LARGE);
    ck_assert_ptr_nonnull(panels);
    memset(panels, 1, LARGE);
    return panels;
}

/* What a store gives back is there for the next one, if that is wanted, and up to a bound. */
START_TEST(memory_goes_to_the_next_model)
{
    enum { BLOCKS = 40, LARGE = 32 << 20 };
    struct panels_store one = {0}, other = {0};
    panels_keep_spare(true);
    void *first = block_of(&one);
    panels_store_close(&one);
    ck_assert(panels_have_spare());
    ck_assert_ptr_eq(block_of(&other), first);
    ck_assert(!panels_have_spare());
    for (int i = 0; i < BLOCKS; i++)
        ck_assert_ptr_nonnull(panels_new(&other, LARGE));
    panels_store_close(&other);
    size_t kept = 0;
    for (; panels_have_spare(); kept++)
        ck_assert_ptr_nonnull(panels_new(&one, LARGE));
    ck_assert_uint_eq(kept, 32);
    panels_store_close(&one);
    ck_assert(panels_have_spare());
    panels_keep_spare(false);
    ck_assert(!panels_have_spare());
    (void)block_of(&one);
    panels_store_close(&one);
    ck_assert(!panels_have_spare());
}
END_TEST

START_TEST(linear_maps_the_last_axis)
{
    const struct stored tensors[] = {STORED("l.weight", DIMS(3, 2), 1, 0, 0, 1, 1, 1),
                                     STORED("l.bias", DIMS(3), 0.5f, 0, -1)};
    if (!use_kernel(_i))
        return;
    expect_layers("[2]", "[{'op':'linear','name':'l'}]", tensors, 2, 2, FLOATS(1, 2, 3, 4),
                  FLOATS(1.5f, 2, 2, 3.5f, 4, 6));
    expect_layers("[2]", "[{'op':'linear','name':'l'}]", tensors, 1, 1, FLOATS(1, 2),
                  FLOATS(1, 2, 3));
    expect_layers("[2,2]", "[{'op':'linear','name':'l'}]", tensors, 2, 1, FLOATS(1, 2, 3, 4),
                  FLOATS(1.5f, 2, 2, 3.5f, 4, 6));
}
END_TEST

START_TEST(linear_says_what_it_is)
{
    struct moed_model *model = load_layers("[5,2]", "[{'op':'linear','name':'l'}]",
                                           TENSORS(STORED("l.weight", DIMS(3, 2), 1, 0, 0, 1, 1, 1),
                                                   STORED("l.bias", DIMS(3), 0, 0, 0)));
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_uint_eq(info->outputs[0].shape.rank, 2);
    ck_assert_uint_eq(info->outputs[0].shape.dims[0], 5);
    ck_assert_uint_eq(info->outputs[0].shape.dims[1], 3);
    ck_assert_uint_eq(info->parameters, 9);
    ck_assert_uint_eq(info->active_parameters, 9);
    ck_assert_uint_eq(info->macs_per_row, 5 * 2 * 3);
    moed_model_free(model);
    expect_refused("[2]", "[{'op':'sum','axis':0},{'op':'linear','name':'l'}]",
                   TENSORS(STORED("l.weight", DIMS(1, 1), 1)), "linear needs at least one axis");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("gemm");
    tcase_set_timeout(tests, TEST_SECONDS);
    tcase_add_loop_test(tests, products_of_every_small_size, 0, KERNELS);
    tcase_add_loop_test(tests, products_beyond_one_cache, 0, KERNELS);
    tcase_add_loop_test(tests, a_product_known_by_heart, 0, KERNELS);
    tcase_add_loop_test(tests, a_row_has_the_same_bits_in_every_batch, 0, KERNELS);
    tcase_add_loop_test(tests, half_precision_weights_are_exact, 0, KERNELS);
    tcase_add_loop_test(tests, fp8_weights_stay_and_are_exact, 0, KERNELS);
    tcase_add_test(tests, matrices_of_a_model_lie_side_by_side);
    tcase_add_test(tests, memory_goes_to_the_next_model);
    tcase_add_loop_test(tests, linear_maps_the_last_axis, 0, KERNELS);
    tcase_add_test(tests, linear_says_what_it_is);
    tcase_add_test(tests, openblas_knows_the_processor);
    tcase_add_test(tests, openblas_is_loaded_only_when_asked_for);
    return run_suite("gemm", tests);
}

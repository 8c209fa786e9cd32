/* Dense algebra: y[rows, n] = x[rows, k] W[n, k]^T on one thread, our kernel beside OpenBLAS,
 * oneDNN and LIBXSMM.
 *
 *   bench_gemm ROWS...
 *
 * One round: each contender once per shape, in turn. Prints a JSON object a line, first the
 * machine's peaks, then {"n", "k", "rows", "contender", "gflops"}. Every result is checked before
 * it is timed. bench_gemm.py repeats the rounds, and sets what OpenBLAS reads from the environment
 * at its start. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "core/dense/gemm.h"
#include "core/moed.h"
#ifdef BENCH_DNNL
#include "onednn_product.h"
#endif
#ifdef BENCH_XSMM
#include "xsmm_product.h"
#endif

static const struct {
    size_t n, k;
} SHAPES[] = {{256, 784}, {512, 1352}, {1024, 2048}, {4096, 4096}};

/* How many outputs are compared with a sum in double. */
enum { CHECKED = 64 };
/* Relative to the sum of the terms' magnitudes: far more than the order of summation changes, far
 * less than any mistake. */
static const double TOLERANCE = 1e-5, ROUNDED_TOLERANCE = 1e-2;

struct problem {
    size_t n, k, rows;
    const float *weights, *x; /* [n, k], [rows, k] */
    float *y;                 /* [rows, n] */
    struct gemm gemm;
    struct onednn_product *product;
    struct dnnl_memory *packed;
    void *narrow_x; /* x as oneDNN reads it */
    struct xsmm_product *xsmm;
};

/* The same numbers in 16 bits; exact (bench_fill()). */
static void *narrow(const float *values, size_t count, enum dtype dtype)
{
    char *copy = bench_memory(count * dtype_bytes(dtype));
    if (dtype == DTYPE_F32)
        return memcpy(copy, values, count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        const uint32_t sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 255;
        const uint32_t f16 =
            exponent ? sign | (exponent - 127 + 15) << 10 | (bits >> 13 & 0x3ff) : sign;
        const uint16_t value = (uint16_t)(dtype == DTYPE_BF16 ? bits >> 16 : f16);
        memcpy(copy + i * sizeof value, &value, sizeof value);
    }
    return copy;
}

/* gemm_init() releases its tensor's pages, so it gets its own copy. */
static int ours_init(struct problem *problem, enum dtype dtype,
                     int (*gemm_make)(struct gemm *gemm, const struct tensor *tensor, size_t n,
                                      size_t k, struct error *err))
{
    void *data = narrow(problem->weights, problem->n * problem->k, dtype);
    const struct tensor tensor = {.name = "weight",
                                  .dtype = dtype,
                                  .rank = 2,
                                  .dims = {problem->n, problem->k},
                                  .elements = problem->n * problem->k,
                                  .data = data};
    struct error err = ERROR_INIT;
    const int result = gemm_make(&problem->gemm, &tensor, problem->n, problem->k, &err);
    free(data);
    if (result != 0)
        fprintf(stderr, "bench_gemm: %s\n", err.text);
    return result;
}

static int ours_f32_init(struct problem *problem)
{
    return ours_init(problem, DTYPE_F32, gemm_init);
}

static int ours_bf16_init(struct problem *problem)
{
    return ours_init(problem, DTYPE_BF16, gemm_init);
}

static int ours_f16_init(struct problem *problem)
{
    return ours_init(problem, DTYPE_F16, gemm_init);
}

static int int8_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
                     struct error *err)
{
    return gemm_init_rounded(gemm, &(struct precision){.bits = 8}, tensor, n, k, err);
}

static int int4_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
                     struct error *err)
{
    return gemm_init_rounded(gemm, &(struct precision){.bits = 4}, tensor, n, k, err);
}

static int ours_int8_init(struct problem *problem)
{
    return ours_init(problem, DTYPE_F32, int8_init);
}

static int ours_int4_init(struct problem *problem)
{
    return ours_init(problem, DTYPE_F32, int4_init);
}

static void ours_run(void *context)
{
    const struct problem *problem = context;
    gemm_rows(&problem->gemm, problem->x, problem->rows, NULL, problem->y);
}

static void ours_close(struct problem *problem)
{
    gemm_close(&problem->gemm);
}

/* OpenBLAS linked directly, not loaded by our kernel: as it runs when nothing sets the processor's
 * type. */
static int openblas_init(struct problem *problem)
{
    (void)problem;
    openblas_set_num_threads(1);
    return 0;
}

static void openblas_run(void *context)
{
    const struct problem *problem = context;
    const int n = (int)problem->n, k = (int)problem->k, rows = (int)problem->rows;
    if (rows == 1)
        cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, problem->weights, k, problem->x, 1, 0,
                    problem->y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, n, k, 1, problem->x, k,
                    problem->weights, k, 0, problem->y, n);
}

static void openblas_close(struct problem *problem)
{
    (void)problem;
}

#ifdef BENCH_DNNL
static int onednn_init(struct problem *problem, bool bf16)
{
    const size_t n = problem->n, k = problem->k, rows = problem->rows;
    problem->product = onednn_product_new(n, k, rows, rows, bf16, false);
    if (!problem->product)
        return -1;
    problem->packed = onednn_product_pack(problem->product, problem->weights);
    problem->narrow_x = narrow(problem->x, rows * k, bf16 ? DTYPE_BF16 : DTYPE_F32);
    return 0;
}

static int onednn_f32_init(struct problem *problem)
{
    return onednn_init(problem, false);
}

static int onednn_bf16_init(struct problem *problem)
{
    return onednn_init(problem, true);
}

static void onednn_run(void *context)
{
    const struct problem *problem = context;
    onednn_product_run(problem->product, problem->packed, problem->rows, problem->narrow_x,
                       problem->y);
}

static void onednn_close(struct problem *problem)
{
    onednn_product_free(problem->product, problem->packed);
    free(problem->narrow_x);
}
#endif

#ifdef BENCH_XSMM
static int xsmm_init(struct problem *problem)
{
    problem->xsmm = xsmm_product_new(problem->n, problem->k, problem->rows, problem->weights);
    return problem->xsmm ? 0 : -1;
}

static void xsmm_run(void *context)
{
    const struct problem *problem = context;
    xsmm_product_run(problem->xsmm, problem->x, problem->y);
}

static void xsmm_close(struct problem *problem)
{
    xsmm_product_free(problem->xsmm);
}
#endif

/* init returns -1 if this machine has no such product. */
static const struct contender {
    const char *name;
    int (*init)(struct problem *problem);
    void (*run)(void *problem);
    void (*close)(struct problem *problem);
    bool rounds; /* its weights are rounded */
} CONTENDERS[] = {
    {"moed f32", ours_f32_init, ours_run, ours_close, false},
    {"moed bf16", ours_bf16_init, ours_run, ours_close, false},
    {"moed f16", ours_f16_init, ours_run, ours_close, false},
    {"moed int8", ours_int8_init, ours_run, ours_close, true},
    {"moed int4", ours_int4_init, ours_run, ours_close, true},
    {"OpenBLAS", openblas_init, openblas_run, openblas_close, false},
#ifdef BENCH_DNNL
    {"oneDNN f32", onednn_f32_init, onednn_run, onednn_close, false},
    {"oneDNN bf16", onednn_bf16_init, onednn_run, onednn_close, false},
#endif
#ifdef BENCH_XSMM
    {"LIBXSMM f32", xsmm_init, xsmm_run, xsmm_close, false},
#endif
};

static void check(const struct problem *problem, const struct contender *contender)
{
    const double tolerance = contender->rounds ? ROUNDED_TOLERANCE : TOLERANCE;
    const size_t outputs = problem->rows * problem->n;
    for (size_t i = 0; i < CHECKED; i++) {
        const size_t at = i * 2654435761u % outputs;
        const float *x = problem->x + at / problem->n * problem->k;
        const float *weights = problem->weights + at % problem->n * problem->k;
        double sum = 0, magnitude = 0;
        for (size_t k = 0; k < problem->k; k++) {
            sum += (double)x[k] * (double)weights[k];
            magnitude += fabs((double)x[k] * (double)weights[k]);
        }
        if (!(fabs(sum - (double)problem->y[at]) <= tolerance * magnitude)) {
            fprintf(stderr, "bench_gemm: %s, %zu x %zu, %zu rows: output %zu is %g, not %g\n",
                    contender->name, problem->n, problem->k, problem->rows, at,
                    (double)problem->y[at], sum);
            exit(EXIT_FAILURE);
        }
    }
}

static void measure(struct problem *problem, const struct contender *contender)
{
    if (contender->init(problem) != 0)
        return;
    memset(problem->y, 0xff, problem->rows * problem->n * sizeof *problem->y); /* NaN */
    contender->run(problem);
    check(problem, contender);
    const double flops = 2.0 * (double)problem->n * (double)problem->k * (double)problem->rows;
    printf("{\"n\": %zu, \"k\": %zu, \"rows\": %zu, \"contender\": \"%s\", \"gflops\": %.2f}\n",
           problem->n, problem->k, problem->rows, contender->name,
           flops / bench_time(contender->run, problem) * 1e-9);
    contender->close(problem);
}

static void measure_shape(size_t n, size_t k, size_t rows)
{
    float *weights = bench_memory(n * k * sizeof *weights), *x = bench_memory(rows * k * sizeof *x);
    float *y = bench_memory(rows * n * sizeof *y);
    bench_fill(weights, n * k, n + k);
    bench_fill(x, rows * k, rows);
    struct problem problem = {.n = n, .k = k, .rows = rows, .weights = weights, .x = x, .y = y};
    for (size_t i = 0; i < sizeof CONTENDERS / sizeof *CONTENDERS; i++)
        measure(&problem, &CONTENDERS[i]);
    free(weights);
    free(x);
    free(y);
}

int main(int argc, char *argv[])
{
    printf("{\"peak_gflops\": %.2f, \"copy_gbytes\": %.2f, \"kernel\": \"%s\"}\n",
           bench_peak_gflops(), bench_copy_gbytes(), moed_kernel_name());
    for (size_t shape = 0; shape < sizeof SHAPES / sizeof *SHAPES; shape++)
        for (int i = 1; i < argc; i++)
            measure_shape(SHAPES[shape].n, SHAPES[shape].k, strtoul(argv[i], NULL, 10));
    return EXIT_SUCCESS;
}

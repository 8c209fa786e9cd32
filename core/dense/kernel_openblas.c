/* OpenBLAS as a kernel: the baseline for ours, chosen by MOED_KERNEL=openblas.
 *
 * The library is loaded only then, because loading starts a thread for every CPU. The CPU's type
 * can only be set before loading: for a CPU that OpenBLAS does not know it picks the code of older
 * ones, which is half as fast on a processor with AVX-512.
 *
 * BLAS uses one thread per call; parallelism over rows and experts is ours. OpenBLAS sums a product
 * of one row in another order than one of many rows, so with this kernel a row's last bits depend
 * on its batch. */
#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/kernel.h"

static struct {
    __typeof__(cblas_sgemv) *sgemv;
    __typeof__(cblas_sgemm) *sgemm;
    __typeof__(openblas_set_num_threads) *set_num_threads;
} blas;

static void name_the_processor(void)
{
#ifdef MOED_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
#endif
}

static void load(void)
{
    name_the_processor();
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return;
    /* POSIX's form: C has no cast from an object pointer to a function pointer. */
    *(void **)&blas.sgemv = dlsym(library, "cblas_sgemv");
    *(void **)&blas.sgemm = dlsym(library, "cblas_sgemm");
    *(void **)&blas.set_num_threads = dlsym(library, "openblas_set_num_threads");
    if (blas.set_num_threads)
        blas.set_num_threads(1);
}

static bool usable(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return blas.sgemv && blas.sgemm && blas.set_num_threads;
}

/* With panels of one output, packed weights are plain row-major weights. */
static void multiply_rows(const struct packed *weights, const float *x, size_t rows,
                          const float *bias, float *y)
{
    size_t first = weights->columns.first, count = weights->columns.end - first;
    int n = (int)count, k = (int)weights->k;
    const float *panels = (const float *)weights->panels + first * weights->k;
    for (size_t row = 0; bias && row < rows; row++)
        memcpy(y + row * weights->n + first, bias + first, count * sizeof *y);
    float keep = bias ? 1.0f : 0.0f;
    if (rows == 1)
        blas.sgemv(CblasRowMajor, CblasNoTrans, n, k, 1.0f, panels, k, x, 1, keep, y + first, 1);
    else
        blas.sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, n, k, 1.0f, x, k, panels, k,
                   keep, y + first, (int)weights->n);
}

static void attend(const struct attended *block, struct attending *queries, size_t count,
                   float scale)
{
    kernel_generic.attend(block, queries, count, scale);
}

static void widen(const uint16_t *halfs, size_t count, float *floats)
{
    kernel_generic.widen(halfs, count, floats);
}

static void narrow(const float *floats, size_t count, uint16_t *halfs)
{
    kernel_generic.narrow(floats, count, halfs);
}

/* BLAS cannot read overlapping windows as a matrix. */
static void pack_columns(const float *weights, size_t count, size_t k, float *packed)
{
    kernel_generic.pack_columns(weights, count, k, packed);
}

static void multiply_columns(const struct filters *filters, const struct columns *columns,
                             const float *x, float *y, size_t y_pitch)
{
    kernel_generic.columns(filters, columns, x, y, y_pitch);
}

static void depthwise(const struct depthwise *conv, const float *x, float *workspace, float *y)
{
    kernel_generic.depthwise(conv, x, workspace, y);
}

const struct kernel kernel_openblas = {.usable = usable,
                                       .lanes = 4, /* as for kernel_generic's columns */
                                       .panel = 1,
                                       .rows = multiply_rows,
                                       .pack_columns = pack_columns,
                                       .columns = multiply_columns,
                                       .depthwise = depthwise,
                                       .attend = attend,
                                       .widen = widen,
                                       .narrow = narrow};

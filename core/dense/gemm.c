/* Packs weights into the layout of the kernel, which is chosen once per process. */
#include "core/dense/gemm.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/dense/kernel.h"
#include "core/dense/vector.h"
#include "core/moed.h"

/* Cache lines, and the pages that large weights ask for: with them an address is translated once
 * per two megabytes instead of once per four kilobytes. Loading takes longer if memory is
 * fragmented, because the operating system then compacts it first. */
enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static const struct kernel *chosen;

static const struct kernel *const KERNELS[] = {
#ifdef MOED_X86
    &kernel_avx512,  &kernel_avx2,
#endif
#ifdef MOED_NEON
    &kernel_neon,
#endif
    &kernel_generic, &kernel_openblas,
};

enum { KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS };

static void choose(void)
{
    const char *name = getenv("MOED_KERNEL");
    for (size_t i = 0; i < KERNEL_COUNT && !chosen; i++)
        if ((!name || strcmp(name, KERNELS[i]->name) == 0) && KERNELS[i]->usable())
            chosen = KERNELS[i];
    if (!chosen)
        chosen = &kernel_generic;
}

const struct kernel *kernel_get(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return chosen;
}

const char *moed_kernel_name(void)
{
    return kernel_get()->name;
}

int moed_kernel_check(struct error *err)
{
    char choices[128] = "";
    const char *name = getenv("MOED_KERNEL");
    if (!name || strcmp(moed_kernel_name(), name) == 0)
        return 0;
    for (size_t i = 0; i < KERNEL_COUNT; i++) {
        if (!KERNELS[i]->usable())
            continue;
        strcat(choices, *choices ? ", " : "");
        strcat(choices, KERNELS[i]->name);
    }
    return error_set(err, ERROR_INVALID, "MOED_KERNEL: this machine can run %s, but not \"%.40s\"",
                     choices, name);
}

/* An output's place in a panel. BF16 weights are stored in pairs (struct packed). */
static size_t place(size_t column, size_t panel, bool paired)
{
    return paired ? column % (panel / 2) * 2 + column / (panel / 2) : column;
}

/* Packs panel by panel: for every k, `panel` outputs side by side; missing ones stay zero. Goes in
 * blocks of k whose destination fits the first-level cache, so that packing is as fast as
 * reading. */
enum { PACK_BLOCK = 64 };

#define PACK(type)                                                                                 \
    static void pack_##type(const type *weights, size_t n, size_t k, size_t panel, bool paired,    \
                            type *to)                                                              \
    {                                                                                              \
        for (size_t first = 0; first < n; first += panel, to += k * panel)                         \
            for (size_t block = 0; block < k; block += PACK_BLOCK) {                               \
                size_t end = k - block < PACK_BLOCK ? k : block + PACK_BLOCK;                      \
                for (size_t column = 0; column < panel && first + column < n; column++) {          \
                    type *const out = to + place(column, panel, paired);                           \
                    for (size_t i = block; i < end; i++)                                           \
                        out[i * panel] = weights[(first + column) * k + i];                        \
                }                                                                                  \
            }                                                                                      \
    }

PACK(float)
PACK(uint16_t)
PACK(int8_t)

/* The tensor's numbers at their natural alignment: in place, or a copy to free. */
static const void *aligned(const struct tensor *tensor, enum dtype dtype, void **owned)
{
    size_t size = dtype_bytes(dtype);
    *owned = NULL;
    if (dtype == tensor->dtype && (uintptr_t)tensor->data % size == 0)
        return tensor->data;
    *owned = malloc(tensor->elements * size);
    if (!*owned)
        return NULL;
    if (dtype == tensor->dtype)
        memcpy(*owned, tensor->data, tensor->elements * size);
    else
        tensor_to_f32(tensor, *owned);
    return *owned;
}

static void *allocate_panels(size_t bytes)
{
    void *panels;
    bool huge = bytes >= HUGE_PAGE;
    if (posix_memalign(&panels, huge ? HUGE_PAGE : ALIGNMENT, bytes) != 0)
        return NULL;
    if (huge)
        madvise(panels, bytes, MADV_HUGEPAGE); /* advice: without huge pages products are slower */
    return panels;
}

static int no_memory(const struct tensor *tensor, struct error *err)
{
    return tensor_error(tensor, err, ERROR_INTERNAL, ": no memory for its weights");
}

/* `weights`: [n, k] of gemm->dtype. */
static int pack(struct gemm *gemm, const struct tensor *tensor, const void *weights,
                struct error *err)
{
    size_t panel = gemm->kernel->panel, n = gemm->n, k = gemm->k;
    size_t panels = (n + panel - 1) / panel, size = dtype_bytes(gemm->dtype);
    size_t bytes;
    if (__builtin_mul_overflow(panels * panel * size, k, &bytes))
        return tensor_error(tensor, err, ERROR_INVALID, " is too large");
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    gemm->bytes += bytes;
    gemm->panels = weights ? allocate_panels(bytes) : NULL;
    if (!gemm->panels)
        return no_memory(tensor, err);
    if (n % panel != 0) /* only the last panel has columns without an output */
        memset((char *)gemm->panels + (panels - 1) * k * panel * size, 0, k * panel * size);
    if (gemm->dtype == DTYPE_F32)
        pack_float(weights, n, k, panel, false, gemm->panels);
    else if (gemm->dtype == DTYPE_I8)
        pack_int8_t(weights, n, k, panel, false, gemm->panels);
    else
        pack_uint16_t(weights, n, k, panel, gemm->dtype == DTYPE_BF16, gemm->panels);
    return 0;
}

static enum dtype packed_dtype(const struct kernel *kernel, enum dtype stored)
{
    bool kept = stored == DTYPE_F16 ? kernel->reads_f16 : kernel->reads_bf16;
    return kept ? stored : DTYPE_F32;
}

int gemm_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k, struct error *err)
{
    const struct kernel *kernel = kernel_get();
    const enum dtype dtype = packed_dtype(kernel, tensor->dtype);
    void *owned;
    *gemm = (struct gemm){.kernel = kernel, .n = n, .k = k, .dtype = dtype};
    int result = pack(gemm, tensor, aligned(tensor, dtype, &owned), err);
    free(owned);
    return result;
}

/* Rounds weights to integers; returns the scale that multiplies them, or a negative number if a
 * weight is not finite. */
static float quantize(const float *weights, size_t k, int8_t *integers)
{
    enum { MOST = 127 };
    float largest = 0;
    for (size_t i = 0; i < k; i++) {
        float magnitude = fabsf(weights[i]);
        if (!(magnitude <= FLT_MAX))
            return -1;
        largest = magnitude > largest ? magnitude : largest;
    }
    float scale = largest / MOST;
    for (size_t i = 0; i < k; i++) {
        float value = scale > 0 ? weights[i] / scale : 0;
        float rounded = value < 0 ? value - 0.5f : value + 0.5f;
        /* For the smallest numbers the scale itself is rounded, so that a quotient may exceed
         * MOST. */
        integers[i] = (int8_t)(rounded > MOST ? MOST : rounded < -MOST ? -MOST : rounded);
    }
    return scale;
}

static int quantize_all(struct gemm *gemm, const struct tensor *tensor, const float *weights,
                        int8_t *integers, struct error *err)
{
    for (size_t i = 0; i < gemm->n; i++) {
        gemm->scales[i] = quantize(weights + i * gemm->k, gemm->k, integers + i * gemm->k);
        if (gemm->scales[i] < 0)
            return error_set(
                err, ERROR_INVALID,
                "tensor '%s': the weights of output %zu are not all finite, which 8 bits "
                "cannot hold",
                tensor->name, i);
    }
    return 0;
}

/* A kernel that cannot read integers gets them as floats. */
static int pack_integers(struct gemm *gemm, const struct tensor *tensor, const int8_t *integers,
                         float *floats, struct error *err)
{
    if (gemm->dtype == DTYPE_I8)
        return pack(gemm, tensor, integers, err);
    for (size_t i = 0; i < tensor->elements; i++)
        floats[i] = integers[i];
    return pack(gemm, tensor, floats, err);
}

int gemm_init_int8(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k,
                   struct error *err)
{
    const struct kernel *kernel = kernel_get();
    *gemm = (struct gemm){.kernel = kernel,
                          .n = n,
                          .k = k,
                          .dtype = kernel->reads_i8 ? DTYPE_I8 : DTYPE_F32,
                          .bytes = n * sizeof *gemm->scales};
    int8_t *integers = malloc(tensor->elements);
    float *floats = malloc(tensor->elements * sizeof *floats);
    gemm->scales = malloc(n * sizeof *gemm->scales);
    int result = -1;
    if (!integers || !floats || !gemm->scales) {
        no_memory(tensor, err);
    } else {
        tensor_to_f32(tensor, floats);
        if (quantize_all(gemm, tensor, floats, integers, err) == 0)
            result = pack_integers(gemm, tensor, integers, floats, err);
    }
    free(floats);
    free(integers);
    return result;
}

void gemm_close(struct gemm *gemm)
{
    free(gemm->panels);
    free(gemm->scales);
    *gemm = (struct gemm){0};
}

VECTORIZED static void scale_outputs(const struct gemm *gemm, const struct columns_of *columns,
                                     size_t rows, const float *bias, float *y)
{
    for (size_t row = 0; row < rows; row++, y += gemm->n) {
        for (size_t i = columns->first; i < columns->end; i++)
            y[i] *= gemm->scales[i];
        for (size_t i = columns->first; bias && i < columns->end; i++)
            y[i] += bias[i];
    }
}

void gemm_part(const struct gemm *gemm, const struct columns_of *columns, const float *x,
               size_t rows, const float *bias, float *y)
{
    struct packed weights = {gemm->panels, gemm->dtype,    gemm->n,
                             gemm->k,      columns->first, columns->end};
    gemm->kernel->rows(&weights, x, rows, gemm->scales ? NULL : bias, y);
    if (gemm->scales)
        scale_outputs(gemm, columns, rows, bias, y);
}

void gemm_rows(const struct gemm *gemm, const float *x, size_t rows, const float *bias, float *y)
{
    gemm_part(gemm, &(struct columns_of){0, gemm->n}, x, rows, bias, y);
}

struct columns_of gemm_columns(const struct gemm *gemm, size_t part, size_t parts)
{
    size_t panel = gemm->kernel->panel, panels = (gemm->n + panel - 1) / panel;
    struct columns_of columns = {panels * part / parts * panel,
                                 panels * (part + 1) / parts * panel};
    columns.end = columns.end < gemm->n ? columns.end : gemm->n;
    return columns;
}

void gemm_windows(const struct gemm *gemm, const struct windows *windows, const float *bias,
                  float *y)
{
    struct packed weights = {gemm->panels, gemm->dtype, gemm->n, gemm->k, 0, gemm->n};
    gemm->kernel->windows(&weights, windows, bias, y);
}

/* Packs weights into the layout of the kernel, which is chosen once per process. */
#include "core/dense/gemm.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/bfloats.h"
#include "core/dense/integers.h"
#include "core/dense/kernel.h"
#include "core/half.h"

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
                    type *const out = to + (paired ? paired_place(column, panel) : column);        \
                    for (size_t i = block; i < end; i++)                                           \
                        out[i * panel] = weights[(first + column) * k + i];                        \
                }                                                                                  \
            }                                                                                      \
    }

PACK(float)
PACK(uint16_t)
PACK(uint8_t)

/* As struct bfloat_kernel has them. */
static void pack_pairs(const uint16_t *weights, size_t n, size_t k, size_t panel, uint16_t *to)
{
    size_t even = whole_pairs(k);
    for (size_t first = 0; first < n; first += panel, to += even * panel)
        for (size_t block = 0; block < even; block += PACK_BLOCK) {
            size_t end = even - block < PACK_BLOCK ? even : block + PACK_BLOCK;
            for (size_t column = 0; column < panel && first + column < n; column++) {
                const uint16_t *const from = weights + (first + column) * k;
                for (size_t i = block; i < end; i++)
                    to[i / 2 * 2 * panel + column * 2 + i % 2] = i < k ? from[i] : 0;
            }
        }
}

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

/* Numbers that a panel has for each of its outputs. */
static size_t packed_inputs(const struct gemm *gemm)
{
    return gemm->bfloats ? whole_pairs(gemm->k) : gemm->k;
}

/* Sets gemm->bytes of weights as they are stored. */
static int size_stored(struct gemm *gemm, const struct tensor *tensor, struct error *err)
{
    size_t panels = (gemm->n + gemm->panel - 1) / gemm->panel, bytes;
    if (__builtin_mul_overflow(panels * gemm->panel * dtype_bytes(gemm->dtype), packed_inputs(gemm),
                               &bytes))
        return tensor_error(tensor, err, ERROR_INVALID, " is too large");
    gemm->bytes = (bytes + PANEL_ALIGNMENT - 1) / PANEL_ALIGNMENT * PANEL_ALIGNMENT;
    return 0;
}

/* `weights`: [n, k] of gemm->dtype. */
static int pack(struct gemm *gemm, struct panels_store *store, const struct tensor *tensor,
                const void *weights, struct error *err)
{
    size_t panel = gemm->panel, n = gemm->n, k = gemm->k;
    size_t panels = (n + panel - 1) / panel;
    size_t each = packed_inputs(gemm) * panel * dtype_bytes(gemm->dtype);
    gemm->panels = weights ? panels_new(store, gemm->bytes) : NULL;
    if (!gemm->panels)
        return panels_error(tensor, err);
    if (n % panel != 0) /* only the last panel has columns without an output */
        memset((char *)gemm->panels + (panels - 1) * each, 0, each);
    if (gemm->bfloats)
        pack_pairs(weights, n, k, panel, gemm->panels);
    else if (gemm->dtype == DTYPE_F32)
        pack_float(weights, n, k, panel, false, gemm->panels);
    else
        pack_uint16_t(weights, n, k, panel, gemm->dtype == DTYPE_BF16, gemm->panels);
    return 0;
}

static enum dtype packed_dtype(const struct kernel *kernel, enum dtype stored)
{
    bool kept = stored == DTYPE_F16       ? kernel->reads_f16
                : stored == DTYPE_F8_E4M3 ? kernel->reads_f8
                                          : kernel->reads_bf16;
    return kept ? stored : DTYPE_F32;
}

/* Scales follow the numbers. Missing outputs of the last panel are zeros. */
static int allocate_scaled(struct gemm *gemm, const struct precision *precision,
                           const struct tensor *tensor, struct error *err)
{
    size_t panels = (gemm->n + gemm->panel - 1) / gemm->panel;
    size_t each = gemm->k * gemm->panel * dtype_bytes(gemm->dtype);
    size_t numbers = (panels * each + PANEL_ALIGNMENT - 1) / PANEL_ALIGNMENT * PANEL_ALIGNMENT;
    bool scaled = gemm->dtype != DTYPE_F32;
    size_t scales = scaled ? integer_groups(gemm->k) * gemm->panel : 0; /* of a panel */
    gemm->bytes = numbers + panels * scales * sizeof *gemm->scales;
    if (precision->sizes_only)
        return 0;
    gemm->panels = panels_new(precision->store, gemm->bytes);
    if (!gemm->panels)
        return panels_error(tensor, err);
    memset((char *)gemm->panels + (panels - 1) * each, 0, each);
    if (scaled) {
        gemm->scales = (float *)(void *)((char *)gemm->panels + numbers);
        memset(gemm->scales + (panels - 1) * scales, 0, scales * sizeof *gemm->scales);
    }
    return 0;
}

/* Of output i. */
static float *scales_of(const struct gemm *gemm, size_t i)
{
    return gemm->scales + i / gemm->panel * integer_groups(gemm->k) * gemm->panel + i % gemm->panel;
}

static int pack_fp8(struct gemm *gemm, const struct precision *precision,
                    const struct tensor *tensor, struct error *err)
{
    size_t groups = integer_groups(gemm->k);
    if (allocate_scaled(gemm, precision, tensor, err) != 0)
        return -1;
    if (precision->sizes_only)
        return 0;
    pack_uint8_t(tensor->data, gemm->n, gemm->k, gemm->panel, false, gemm->panels);
    for (size_t i = 0; i < gemm->n; i++)
        for (size_t g = 0; g < groups; g++)
            scales_of(gemm, i)[g * gemm->panel] = tensor->scales[i * groups + g] * FP8_UNIT;
    return 0;
}

/* Weights as they are stored; `gemm` has everything else. */
static int pack_stored(struct gemm *gemm, const struct precision *precision,
                       const struct tensor *tensor, struct error *err)
{
    void *owned;
    if (precision->inputs == MOED_ACTIVATIONS_BF16 && tensor->dtype == DTYPE_BF16)
        gemm->bfloats = bfloat_kernel_get();
    if (gemm->bfloats)
        gemm->panel = gemm->bfloats->panel;
    gemm->dtype = packed_dtype(gemm->kernel, tensor->dtype);
    if (gemm->dtype == DTYPE_F8_E4M3)
        return pack_fp8(gemm, precision, tensor, err);
    if (size_stored(gemm, tensor, err) != 0)
        return -1;
    if (precision->sizes_only)
        return 0;
    int result = pack(gemm, precision->store, tensor, aligned(tensor, gemm->dtype, &owned), err);
    free(owned);
    return result;
}

int gemm_init(struct gemm *gemm, const struct tensor *tensor, size_t n, size_t k, struct error *err)
{
    return gemm_init_rounded(gemm, &(struct precision){0}, tensor, n, k, err);
}

/* Rounded weights as struct packed has them. A kernel that cannot read integers gets floats. */
static void put_output(const struct gemm *gemm, size_t i, const struct rounded_output *output)
{
    size_t panel = gemm->panel, k = gemm->k;
    size_t first = i / panel * k * panel + i % panel;
    for (size_t j = 0; j < k; j++) {
        float scale = float_of_bfloat(output->scales[j / GROUP]);
        if (gemm->scales) {
            ((int8_t *)gemm->panels)[first + j * panel] = output->integers[j];
            scales_of(gemm, i)[j / GROUP * panel] = scale;
        } else {
            ((float *)gemm->panels)[first + j * panel] = (float)output->integers[j] * scale;
        }
    }
}

static enum integer_format format_of(const struct precision *precision, const struct tensor *tensor)
{
    if (tensor->fp4)
        return INTEGER_FP4;
    return precision->bits == 8 ? INTEGER_8 : precision->bits == 6 ? INTEGER_6 : INTEGER_4;
}

/* Rounded weights, f32 inputs. */
static int pack_numbers(struct gemm *gemm, const struct precision *precision,
                        const struct tensor *tensor, struct error *err)
{
    struct rounded_output output;
    gemm->dtype = gemm->kernel->reads_i8 ? DTYPE_I8 : DTYPE_F32;
    if (allocate_scaled(gemm, precision, tensor, err) != 0)
        return -1;
    if (precision->sizes_only)
        return 0;
    if (rounded_output_init(&output, tensor, gemm->k, format_of(precision, tensor), err) != 0)
        return -1;
    int result = 0;
    for (size_t i = 0; i < gemm->n && result == 0; i++) {
        result = rounded_output_read(&output, i, err);
        if (result == 0)
            put_output(gemm, i, &output);
    }
    rounded_output_close(&output);
    return result;
}

int gemm_init_rounded(struct gemm *gemm, const struct precision *precision,
                      const struct tensor *tensor, size_t n, size_t k, struct error *err)
{
    const struct kernel *kernel = kernel_get();
    bool stored = precision->store;
    bool kept_fp4 = tensor->fp4 && precision->inputs != MOED_ACTIVATIONS_BF16;
    *gemm =
        (struct gemm){.kernel = kernel, .n = n, .k = k, .panel = kernel->panel, .stored = stored};
    if (precision->bits == 0 && !kept_fp4)
        return pack_stored(gemm, precision, tensor, err);
    if (precision->bits == 0 || precision->inputs == MOED_ACTIVATIONS_F32)
        return pack_numbers(gemm, precision, tensor, err);
    gemm->panel = integer_kernel_get()->panel;
    gemm->rounded =
        (struct rounded){.n = n, .k = k, .format = format_of(precision, tensor), .stored = stored};
    rounded_size(&gemm->rounded);
    gemm->bytes = gemm->rounded.bytes;
    if (!precision->sizes_only && rounded_init(&gemm->rounded, precision->store, tensor, err) != 0)
        return -1;
    return 0;
}

void gemm_close(struct gemm *gemm)
{
    rounded_close(&gemm->rounded);
    if (!gemm->stored)
        free(gemm->panels);
    *gemm = (struct gemm){0};
}

void gemm_part(const struct gemm *gemm, const struct columns_of *columns, const float *x,
               size_t rows, const float *bias, float *y)
{
    struct packed weights = {.panels = gemm->panels,
                             .dtype = gemm->dtype,
                             .scales = gemm->scales,
                             .n = gemm->n,
                             .k = gemm->k,
                             .columns = *columns};
    struct rounded_product product = {&gemm->rounded, bias, y};
    if (gemm->rounded.kernel)
        rounded_parts(&product, 1, columns, x, rows);
    else if (gemm->bfloats)
        gemm->bfloats->rows(&weights, x, rows, bias, y);
    else
        gemm->kernel->rows(&weights, x, rows, bias, y);
}

void gemm_rows(const struct gemm *gemm, const float *x, size_t rows, const float *bias, float *y)
{
    gemm_part(gemm, &(struct columns_of){0, gemm->n}, x, rows, bias, y);
}

void gemm_part_of_both(const struct gemm_product products[2], const struct columns_of *columns,
                       const float *x, size_t rows)
{
    struct rounded_product both[2];
    for (size_t i = 0; i < 2; i++) {
        const struct gemm_product *of = &products[i];
        both[i] = (struct rounded_product){&of->gemm->rounded, of->bias, of->y};
        if (!of->gemm->rounded.kernel)
            gemm_part(of->gemm, columns, x, rows, of->bias, of->y);
    }
    if (products->gemm->rounded.kernel)
        rounded_parts(both, 2, columns, x, rows);
}

struct columns_of gemm_columns(const struct gemm *gemm, size_t part, size_t parts)
{
    size_t panel = gemm->panel, panels = (gemm->n + panel - 1) / panel;
    struct columns_of columns = {panels * part / parts * panel,
                                 panels * (part + 1) / parts * panel};
    columns.end = columns.end < gemm->n ? columns.end : gemm->n;
    return columns;
}

void gemm_windows(const struct gemm *gemm, const struct windows *windows, const float *bias,
                  float *y)
{
    struct packed weights = {.panels = gemm->panels,
                             .dtype = gemm->dtype,
                             .n = gemm->n,
                             .k = gemm->k,
                             .columns = {0, gemm->n}};
    gemm->kernel->windows(&weights, windows, bias, y);
}

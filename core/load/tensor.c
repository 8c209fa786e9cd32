/* A tensor's numbers stay in the mapping, little-endian and at any alignment, until they are
 * copied. */
#include "core/load/tensor.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/dense/convert.h"
#include "core/dense/vector.h"
#include "core/half.h"

static const struct {
    const char *name;
    size_t bytes;
} DTYPES[] = {[DTYPE_F32] = {"F32", 4}, [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2},
              [DTYPE_I8] = {NULL, 1},   [DTYPE_U8] = {"U8", 1},   [DTYPE_F8_E4M3] = {"F8_E4M3", 1}};

size_t dtype_bytes(enum dtype dtype)
{
    return DTYPES[dtype].bytes;
}

bool dtype_is_plain(enum dtype dtype)
{
    return dtype < DTYPE_I8;
}

const char *dtype_name(enum dtype dtype)
{
    return DTYPES[dtype].name;
}

int dtype_parse(const char *name, enum dtype *dtype)
{
    for (size_t i = 0; name && i < sizeof DTYPES / sizeof *DTYPES; i++) {
        if (DTYPES[i].name && strcmp(name, DTYPES[i].name) == 0) {
            *dtype = (enum dtype)i;
            return 0;
        }
    }
    return -1;
}

int tensor_error(const struct tensor *tensor, struct error *err, enum error_code code,
                 const char *format, ...)
{
    char message[ERROR_TEXT_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return error_set(err, code, "%s: tensor '%s'%s", tensor->shard, tensor->name, message);
}

/* ---- numbers ---- */

/* NaN and the infinities have all bits of the exponent set. The loops have no early exit, so that
 * they run at the speed of memory. */
VECTORIZED static bool has_exponent32(const void *data, size_t count, uint32_t exponent)
{
    const char *bytes = data;
    uint32_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
        found |= (bits & exponent) == exponent;
    }
    return found;
}

VECTORIZED static bool has_exponent16(const void *data, size_t count, uint16_t exponent)
{
    const char *bytes = data;
    uint16_t found = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
        found |= (bits & exponent) == exponent;
    }
    return found;
}

VECTORIZED static bool has_fp8_nan(const uint8_t *bytes, size_t count)
{
    uint8_t found = 0;
    for (size_t i = 0; i < count; i++)
        found |= (bytes[i] & 0x7F) == 0x7F;
    return found;
}

static bool all_finite(enum dtype dtype, const void *data, size_t count)
{
    if (dtype == DTYPE_F8_E4M3)
        return !has_fp8_nan(data, count);
    if (dtype == DTYPE_F32)
        return !has_exponent32(data, count, 0x7F800000);
    return !has_exponent16(data, count, dtype == DTYPE_F16 ? 0x7C00 : 0x7F80);
}

static size_t groups_of_row(const struct tensor *tensor)
{
    return (tensor->dims[tensor->rank - 1] + SCALED_GROUP - 1) / SCALED_GROUP;
}

/* With larger ones products with FP8's largest number, or with a scale's own unit (kernel.h), could
 * overflow. */
static int check_scales(const struct tensor *tensor, struct error *err)
{
    size_t count = tensor->elements / tensor->dims[tensor->rank - 1] * groups_of_row(tensor);
    for (size_t i = 0; i < count; i++)
        if (!(fabsf(tensor->scales[i]) <= 0x1p100f))
            return tensor_error(tensor, err, ERROR_INVALID,
                                ": a block's scale is %g, expected at most 2^100",
                                (double)tensor->scales[i]);
    return 0;
}

int tensor_check_finite(const struct tensor *tensor, struct error *err)
{
    enum { AT_ONCE = 1 << 14 };
    if (tensor->scales && check_scales(tensor, err) != 0)
        return -1;
    const char *data = tensor->data;
    size_t bytes = dtype_bytes(tensor->dtype);
    for (size_t done = 0; done < tensor->elements; done += AT_ONCE) {
        size_t left = tensor->elements - done, count = left < AT_ONCE ? left : AT_ONCE;
        if (all_finite(tensor->dtype, data + done * bytes, count))
            continue;
        size_t i = done;
        while (all_finite(tensor->dtype, data + i * bytes, 1))
            i++;
        return tensor_error(tensor, err, ERROR_INVALID,
                            ": element %zu of %zu is NaN or infinite, expected finite weights", i,
                            tensor->elements);
    }
    return 0;
}

bool tensor_is_in_place(const struct tensor *tensor)
{
    return tensor->data && !(tensor->copy && *tensor->copy);
}

static void drop_pages(const struct tensor *tensor)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)tensor->data + page - 1) / page * page;
    uintptr_t end =
        ((uintptr_t)tensor->data + tensor->elements * dtype_bytes(tensor->dtype)) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED); /* advice: failing costs memory only */
}

void tensor_drop_pages(const struct tensor *tensor)
{
    if (tensor->copy && *tensor->copy) {
        free(*tensor->copy);
        *tensor->copy = NULL;
    } else if (tensor->data && !tensor->kept) {
        drop_pages(tensor);
    }
}

void tensor_leave_pages(const struct tensor *tensor)
{
    if (tensor->mapped && tensor_is_in_place(tensor))
        drop_pages(tensor);
}

static void fp8_to_f32(const struct tensor *tensor, size_t first, size_t count, float *values)
{
    const uint8_t *bytes = (const uint8_t *)tensor->data + first;
    size_t columns = tensor->dims[tensor->rank - 1], column = first % columns;
    const float *scales = tensor->scales + first / columns * groups_of_row(tensor);
    for (size_t i = 0; i < count; i++) {
        values[i] = float_of_fp8(bytes[i]) * scales[column / SCALED_GROUP];
        if (++column == columns) {
            column = 0;
            scales += groups_of_row(tensor);
        }
    }
}

void tensor_part_to_f32(const struct tensor *tensor, size_t first, size_t count, float *values)
{
    const char *data = (const char *)tensor->data + first * dtype_bytes(tensor->dtype);
    switch (tensor->dtype) {
    case DTYPE_F32:
        memcpy(values, data, count * sizeof *values);
        break;
    case DTYPE_F16:
        convert_f16_to_f32(data, count, values);
        break;
    case DTYPE_BF16:
        convert_bf16_to_f32(data, count, values);
        break;
    case DTYPE_F8_E4M3:
        fp8_to_f32(tensor, first, count, values);
        break;
    case DTYPE_I8: /* not stored */
    case DTYPE_U8: /* read by views only */
        break;
    }
}

void tensor_to_f32(const struct tensor *tensor, float *values)
{
    tensor_part_to_f32(tensor, 0, tensor->elements, values);
}

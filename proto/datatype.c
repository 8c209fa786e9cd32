/* Elements are read with memcpy, because they have any alignment in the body. */
#include "proto/datatype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/half.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the wire is little-endian and elements are copied as they are");

static const struct {
    const char *name;
    size_t bytes;
} DATATYPE_TABLE[DATATYPE_COUNT] = {
#define DATATYPE_ROW(name, bytes) {#name, bytes},
    DATATYPES(DATATYPE_ROW)
#undef DATATYPE_ROW
};

enum datatype datatype_from_name(const char *name)
{
    size_t i = 0;
    while (i < DATATYPE_COUNT && strcmp(name, DATATYPE_TABLE[i].name) != 0)
        i++;
    return (enum datatype)i;
}

const char *datatype_name(enum datatype datatype)
{
    return DATATYPE_TABLE[datatype].name;
}

size_t datatype_bytes(enum datatype datatype)
{
    return DATATYPE_TABLE[datatype].bytes;
}

bool datatype_is_numeric(enum datatype datatype)
{
    return datatype != DATATYPE_BOOL && datatype != DATATYPE_BYTES && datatype < DATATYPE_COUNT;
}

/* An integer in [lowest, limit): the upper bound is exclusive because 2^63 and 2^64 are doubles and
 * INT64_MAX and UINT64_MAX are not. */
static bool is_integer(double value, double lowest, double limit)
{
    return value >= lowest && value < limit && value == floor(value);
}

bool datatype_holds(enum datatype datatype, double value)
{
    switch (datatype) {
    case DATATYPE_BOOL:
        return value == 0 || value == 1;
    case DATATYPE_UINT8:
        return is_integer(value, 0, 0x1p8);
    case DATATYPE_UINT16:
        return is_integer(value, 0, 0x1p16);
    case DATATYPE_UINT32:
        return is_integer(value, 0, 0x1p32);
    case DATATYPE_UINT64:
        return is_integer(value, 0, 0x1p64);
    case DATATYPE_INT8:
        return is_integer(value, -0x1p7, 0x1p7);
    case DATATYPE_INT16:
        return is_integer(value, -0x1p15, 0x1p15);
    case DATATYPE_INT32:
        return is_integer(value, -0x1p31, 0x1p31);
    case DATATYPE_INT64:
        return is_integer(value, -0x1p63, 0x1p63);
    case DATATYPE_FP16:
        return fabs(value) < 65520; /* from here on they round to infinity */
    case DATATYPE_BF16:
        return fabs(value) < 0x1.FFp127;
    case DATATYPE_FP32:
        return fabs(value) < 0x1.FFFFFFp127;
    case DATATYPE_FP64:
        return isfinite(value);
    default:
        return false;
    }
}

/* A double past FLT_MAX becomes infinite; the conversion itself would be undefined. */
static float float_from_double(double value)
{
    if (datatype_holds(DATATYPE_FP32, value) || !isfinite(value))
        return (float)value;
    return value > 0 ? INFINITY : -INFINITY;
}

static size_t finite_prefix(const float *values, size_t count)
{
    size_t i = 0;
    while (i < count && isfinite(values[i]))
        i++;
    return i;
}

#define CONVERT(type, expression)                                                                  \
    for (size_t i = 0; i < count; i++) {                                                           \
        type element;                                                                              \
        memcpy(&element, from + i * sizeof element, sizeof element);                               \
        values[i] = (expression);                                                                  \
    }                                                                                              \
    break

#define ELEMENT(type, expression)                                                                  \
    {                                                                                              \
        type element;                                                                              \
        memcpy(&element, bytes, sizeof element);                                                   \
        return (expression);                                                                       \
    }

double datatype_to_f64(enum datatype datatype, const void *bytes)
{
    switch (datatype) {
    case DATATYPE_UINT64:
        ELEMENT(uint64_t, (double)element);
    case DATATYPE_INT32:
        ELEMENT(int32_t, element);
    case DATATYPE_UINT32:
        ELEMENT(uint32_t, element);
    case DATATYPE_INT64:
        ELEMENT(int64_t, (double)element);
    case DATATYPE_FP64:
        ELEMENT(double, element);
    default: {
        float value = NAN; /* these are exact in f32 */
        datatype_to_f32(datatype, bytes, 1, &value);
        return (double)value;
    }
    }
}
#undef ELEMENT

size_t datatype_to_f32(enum datatype datatype, const void *bytes, size_t count, float *values)
{
    const unsigned char *from = bytes;
    switch (datatype) {
    case DATATYPE_BOOL:
    case DATATYPE_UINT8:
        CONVERT(uint8_t, element);
    case DATATYPE_UINT16:
        CONVERT(uint16_t, element);
    case DATATYPE_UINT32:
        CONVERT(uint32_t, (float)element);
    case DATATYPE_UINT64:
        CONVERT(uint64_t, (float)element);
    case DATATYPE_INT8:
        CONVERT(int8_t, element);
    case DATATYPE_INT16:
        CONVERT(int16_t, element);
    case DATATYPE_INT32:
        CONVERT(int32_t, (float)element);
    case DATATYPE_INT64:
        CONVERT(int64_t, (float)element);
    case DATATYPE_FP16:
        CONVERT(uint16_t, float_of_half(element));
    case DATATYPE_BF16:
        CONVERT(uint16_t, float_of_bfloat(element));
    case DATATYPE_FP32:
        memcpy(values, from, count * sizeof *values);
        break;
    case DATATYPE_FP64:
        CONVERT(double, float_from_double(element));
    default:
        return 0;
    }
    return finite_prefix(values, count);
}
#undef CONVERT

/* Converts arrays of 16-bit floats with loops that vectorize. */
#include "core/dense/convert.h"

#include <string.h>

#include "core/half.h"

void convert_f16_to_f32(const void *half, size_t count, float *values)
{
    const char *bytes = half;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        values[i] = float_of_half(bits);
    }
}

void convert_bf16_to_f32(const void *half, size_t count, float *values)
{
    const char *bytes = half;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        values[i] = float_of_bfloat(bits);
    }
}

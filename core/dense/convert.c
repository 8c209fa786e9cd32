/* 16-bit floating-point formats; see convert.h. */
#include "core/dense/convert.h"

#include <string.h>

/* IEEE binary16 has 5 exponent bits biased by 15 where binary32 has 8 biased by 127. Subnormals are
 * normalised by letting the FPU subtract: (1.m - 1) * 2^-14 is exact. */
static float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 0x1fu;
    uint32_t mantissa = (uint32_t)(half & 0x3ffu) << 13;
    uint32_t bits;
    float value;
    if (exponent == 0) {
        const uint32_t two_to_minus_14 = (127u - 14u) << 23;
        bits = two_to_minus_14 | mantissa;
        float offset;
        memcpy(&offset, &two_to_minus_14, sizeof offset);
        memcpy(&value, &bits, sizeof value);
        value -= offset;
        memcpy(&bits, &value, sizeof bits);
    } else if (exponent == 0x1f) {
        bits = 0x7f800000u | mantissa;
    } else {
        bits = (exponent + 127u - 15u) << 23 | mantissa;
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void convert_f16_to_f32(const void *half, size_t count, float *values)
{
    const char *bytes = half;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        values[i] = f16_to_f32(bits);
    }
}

void convert_bf16_to_f32(const void *half, size_t count, float *values)
{
    const char *bytes = half;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        uint32_t wide = (uint32_t)bits << 16;
        memcpy(&values[i], &wide, sizeof wide);
    }
}

/* 16-bit floating-point numbers to f32; exact. */
#ifndef CORE_HALF_H
#define CORE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16 has 5 exponent bits biased by 15 where binary32 has 8 biased by 127. For subnormals
 * the FPU's subtraction normalises: (1.m - 1) * 2^-14 is exact. */
static inline float float_of_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 0x1Fu;
    uint32_t mantissa = (uint32_t)(half & 0x3FFu) << 13;
    uint32_t bits;
    if (exponent == 0) {
        uint32_t two_to_minus_14 = (127u - 14u) << 23;
        float value = float_of_bits(two_to_minus_14 | mantissa) - float_of_bits(two_to_minus_14);
        memcpy(&bits, &value, sizeof bits);
    } else if (exponent == 0x1F) {
        bits = 0x7F800000u | mantissa;
    } else {
        bits = (exponent + 127u - 15u) << 23 | mantissa;
    }
    return float_of_bits(bits | sign);
}

/* bfloat16 is the upper half of binary32. */
static inline float float_of_bfloat(uint16_t bfloat)
{
    return float_of_bits((uint32_t)bfloat << 16);
}

#endif

/* 16-bit floating-point numbers to f32, exactly, and back; 8-bit ones to f32. */
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

/* The nearest IEEE binary16, ties to even. What is larger than its largest number becomes that; NaN
 * stays NaN. For subnormals the FPU's addition rounds. */
static inline uint16_t half_of_float(float value)
{
    const uint32_t largest = 0x477FE000; /* 65504 */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u);
    if (magnitude >= largest)
        return (uint16_t)(sign | 0x7BFFu);
    if (magnitude < (127u - 14u) << 23) { /* the last place of the sum is 2^-24 */
        float sum = float_of_bits(magnitude) + 0.5f;
        memcpy(&bits, &sum, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3F000000u));
    }
    uint32_t odd = magnitude >> 13 & 1u;
    return (uint16_t)(sign | ((magnitude + 0xFFFu + odd - ((127u - 15u) << 23)) >> 13));
}

/* E4M3: sign, 4 exponent bits biased by 7, 3 of mantissa. As a half's, which are biased by 15, they
 * are 2^-8 of the number. The one number that is NaN, of either sign, is not looked for. */
static inline float float_of_fp8(uint8_t fp8)
{
    return float_of_half((uint16_t)((fp8 & 0x80u) << 8 | (fp8 & 0x7Fu) << 7)) * 0x1p8f;
}

/* bfloat16 is the upper half of binary32. */
static inline float float_of_bfloat(uint16_t bfloat)
{
    return float_of_bits((uint32_t)bfloat << 16);
}

#endif

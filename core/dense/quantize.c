/* Loops over groups of a constant size, which compilers turn into vectors. No compiler or machine
 * changes a bit: nothing is fused or reordered, and division and rounding are IEEE's. */
#include "core/dense/quantize.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/dense/vector.h"
#include "core/half.h"

#define INLINE static inline __attribute__((always_inline))

/* Smaller numbers are taken for zero, so that scales and their inverses are normal floats. */
static const float SMALLEST = 0x1p-100f;

/* The sum's last place is 1, so that adding this rounds to the nearest integer, ties to even. */
static const float TO_INTEGER = 0x1.8p23f;

/* The largest magnitude; NaN if there is one, because its bits are the largest. */
INLINE float largest_of(const float *values)
{
    uint32_t most = 0;
    for (size_t i = 0; i < GROUP; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7FFFFFFF;
        most = bits > most ? bits : most;
    }
    return float_of_bits(most);
}

/* Numbers times `inverse` as integers. The products lie within -127.5 and 127.5. */
INLINE void round_group(const float *values, float inverse, int8_t *integers)
{
    for (size_t i = 0; i < GROUP; i++) {
        float shifted = values[i] * inverse + TO_INTEGER;
        int32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        integers[i] = (int8_t)bits; /* the lowest bits are the integer's */
    }
}

/* A group, or what is left of a row and zeros. */
INLINE const float *whole_group(const float *values, size_t left, float *padded)
{
    if (left >= GROUP)
        return values;
    memset(padded, 0, GROUP * sizeof *padded);
    memcpy(padded, values, left * sizeof *padded);
    return padded;
}

VECTORIZED void quantize_inputs(const float *x, size_t count, int zero, int8_t *values,
                                float *scales, int32_t *starts)
{
    for (size_t done = 0; done < count; done += GROUP, values += GROUP) {
        float padded[GROUP];
        const float *group = whole_group(x + done, count - done, padded);
        float largest = largest_of(group);
        int32_t sum = 0;
        round_group(group, largest < SMALLEST ? 0 : 127 / largest, values);
        for (size_t i = 0; i < GROUP; i++)
            sum += values[i];
        *scales++ = largest < SMALLEST ? 0 : largest / 127 + (largest - largest);
        *starts++ = -zero * sum;
    }
}

/* The next BF16 that is not smaller, and the nearest one. */
static uint16_t bfloat_above(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0xFFFF) >> 16);
}

static uint16_t bfloat_near(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x8000) >> 16);
}

static uint16_t quantize_evenly(const float *group, float largest, float most, int8_t *integers)
{
    uint16_t scale = bfloat_above(largest / most);
    round_group(group, 1 / float_of_bfloat(scale), integers);
    return scale;
}

/* The largest is 1, 1.5, 2, 3, 4 or 6 times a power of two. With an eighth of its own power as the
 * scale it becomes 8 or 12, and whatever may stand beside it one of FP4's numbers. */
static uint16_t quantize_fp4(const float *group, float largest, int8_t *integers)
{
    int exponent;
    frexpf(largest, &exponent);
    float scale = ldexpf(1, exponent - 4);
    round_group(group, 1 / scale, integers);
    return bfloat_near(scale);
}

/* 4 bits hold -8 but not 8, so the largest number becomes about -8: scales may be negative. Smaller
 * ones cut the largest off and hold the others better. All are tried at once, a lane each; the
 * first one again in the lanes that are left. */
enum { SCALES = 8 };
static const float MOST[SCALES] = {-8, -7.5f, -8.5f, -7, -9, -6.5f, -8, -8};
typedef float per_scale __attribute__((vector_size(SCALES * sizeof(float))));
typedef int32_t per_scale_bits __attribute__((vector_size(SCALES * sizeof(int32_t))));

/* Numbers in units of their scales as integers of 4 bits. */
INLINE void round_to_4(per_scale *numbers)
{
    per_scale_bits most = (per_scale_bits)((per_scale){0} + 7),
                   least = (per_scale_bits)((per_scale){0} - 8), bits = (per_scale_bits)*numbers;
    per_scale_bits above = *numbers > 7, below = *numbers < -8;
    bits = (above & most) | (~above & bits);
    bits = (below & least) | (~below & bits);
    *numbers = (per_scale)bits + TO_INTEGER - TO_INTEGER;
}

/* How far off numbers are as integers of 4 bits times each scale, squared, if the largest number
 * is `largest`. */
INLINE void errors_in_4(const float *values, float largest, const per_scale *scales,
                        per_scale *errors)
{
    per_scale sums[DOT_LANES] = {0}, inverse = 1 / *scales, unit = *scales / largest;
    for (size_t i = 0; i < GROUP; i += DOT_LANES)
#pragma GCC unroll 8
        for (size_t lane = 0; lane < DOT_LANES; lane++) {
            per_scale scaled = values[i + lane] * inverse, rounded = scaled;
            round_to_4(&rounded);
            per_scale off = (scaled - rounded) * unit;
            sums[lane] += off * off;
        }
    *errors = sums[0];
    for (size_t lane = 1; lane < DOT_LANES; lane++)
        *errors += sums[lane];
}

INLINE void integers_of_4(const float *values, float scale, int8_t *integers)
{
    float inverse = 1 / scale, cut[GROUP];
    for (size_t i = 0; i < GROUP; i++) {
        float value = values[i] * inverse;
        value = value > 7 ? 7 : value;
        cut[i] = value < -8 ? -8 : value;
    }
    round_group(cut, 1, integers);
}

VECTORIZED static uint16_t quantize_4(const float *group, float largest, int8_t *integers)
{
    uint16_t scales[SCALES];
    per_scale tried, errors;
    size_t best = 0;
    for (size_t i = 0; i < GROUP; i++)
        largest = group[i] == -largest ? -largest : largest;
    for (size_t i = 0; i < SCALES; i++) {
        scales[i] = bfloat_near(largest / MOST[i]);
        tried[i] = float_of_bfloat(scales[i]);
    }
    errors_in_4(group, largest, &tried, &errors);
    for (size_t i = 1; i < SCALES; i++)
        best = errors[i] < errors[best] ? i : best;
    integers_of_4(group, tried[best], integers);
    return scales[best];
}

static uint16_t quantize_group(const float *group, float largest, enum integer_format format,
                               int8_t *integers)
{
    switch (format) {
    case INTEGER_8:
        return quantize_evenly(group, largest, 127, integers);
    case INTEGER_6:
        return quantize_evenly(group, largest, 31, integers);
    case INTEGER_4:
        return quantize_4(group, largest, integers);
    default:
        return quantize_fp4(group, largest, integers);
    }
}

int quantize_weights(const float *weights, size_t count, enum integer_format format,
                     int8_t *integers, uint16_t *scales)
{
    for (size_t done = 0; done < count; done += GROUP, integers += GROUP, scales++) {
        float padded[GROUP];
        const float *group = whole_group(weights + done, count - done, padded);
        float largest = largest_of(group);
        if (!(largest <= FLT_MAX))
            return -1;
        if (largest < SMALLEST) {
            memset(integers, 0, GROUP);
            *scales = 0;
        } else {
            *scales = quantize_group(group, largest, format, integers);
        }
    }
    return 0;
}

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

static uint16_t quantize_8(const float *group, float largest, int8_t *integers)
{
    uint16_t scale = bfloat_above(largest / 127);
    round_group(group, 1 / float_of_bfloat(scale), integers);
    return scale;
}

/* Numbers as integers of 4 bits times `scale`. Returns how far off those are, squared, if the
 * largest number is `largest`. */
INLINE float round_to_4(const float *values, float largest, float scale, int8_t *integers)
{
    float cut[GROUP], lanes[DOT_LANES] = {0}, error = 0, inverse = 1 / scale;
    for (size_t i = 0; i < GROUP; i++) {
        float value = values[i] * inverse;
        value = value > 7 ? 7 : value;
        cut[i] = value < -8 ? -8 : value;
    }
    round_group(cut, 1, integers);
    for (size_t i = 0; i < GROUP; i++) {
        float off = (values[i] * inverse - (float)integers[i]) * (scale / largest);
        lanes[i % DOT_LANES] += off * off;
    }
    for (size_t lane = 0; lane < DOT_LANES; lane++)
        error += lanes[lane];
    return error;
}

/* 4 bits hold -8 but not 8, so the largest number becomes about -8: scales may be negative. Smaller
 * ones cut the largest off and hold the others better. */
VECTORIZED static uint16_t quantize_4(const float *group, float largest, int8_t *integers)
{
    static const float MOST[] = {-8, -7.5f, -8.5f, -7, -9, -6.5f};
    float least = INFINITY;
    uint16_t best = 0;
    for (size_t i = 0; i < GROUP; i++)
        largest = group[i] == -largest ? -largest : largest;
    for (size_t i = 0; i < sizeof MOST / sizeof *MOST; i++) {
        int8_t rounded[GROUP];
        uint16_t scale = bfloat_near(largest / MOST[i]);
        float error = round_to_4(group, largest, float_of_bfloat(scale), rounded);
        if (error < least) {
            least = error;
            best = scale;
            memcpy(integers, rounded, sizeof rounded);
        }
    }
    return best;
}

int quantize_weights(const float *weights, size_t count, unsigned bits, int8_t *integers,
                     uint16_t *scales)
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
            *scales = (bits == 8 ? quantize_8 : quantize_4)(group, largest, integers);
        }
    }
    return 0;
}

/* Products of integers: weights in 8, 6 or 4 bits, inputs in 8, both with a scale for every group
 * of 32 numbers along k.
 *
 *   y[r, i] = bias[i] + sum over groups g of S(r, i, g) * x_scale[r, g] * w_scale[i, g]
 *   S(r, i, g) = sum over the group's 32 numbers of x[r, k] * w[i, k]
 *
 * S is a sum of integers: exact in any order, and as a float, because it is below 2^24. The rest
 * has one order, groups upwards, and one rounding, fma(S * x_scale, w_scale, sum). So every kernel
 * gives the same bits, whatever the batch or the thread. The format is that of llama.cpp's Q8_0 and
 * Q4_0 but for the scales, which are BF16. Private to core/dense. */
#ifndef CORE_INTEGERS_H
#define CORE_INTEGERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dense/integer_format.h"
#include "core/dense/panels.h"

enum { GROUP = SCALED_GROUP, QUAD = 4, QUADS = GROUP / QUAD };

/* 0, 1, 2, 3, 4, 6, 8, 12 and the same below 0, plus 12: twice the numbers of MXFP4. Its scales are
 * powers of two, so that FP4 holds it exactly. */
enum { FP4_MOST = 12 };
static const uint8_t FP4_NUMBERS[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

/* Weights W[n, k] as kernels read them: panels of `panel` consecutive outputs; of a panel, groups
 * one after the other. A group is
 *
 *   uint16_t scales[panel]         BF16, in pairs (paired_place())
 *   uint8_t weights[8][panel][4]   8 bits: quads of consecutive inputs; a weight plus 128
 *   uint8_t weights[4][panel][4]   4 bits: quads 2q and 2q + 1, in the lower and upper half of a
 *                                  byte; a weight plus 8
 *   uint8_t weights[6][panel][4]   6 bits: quads 4q to 4q + 2 in the lower 6 bits of three bytes;
 *                                  the upper 2 are quad 4q + 3, highest first; a weight plus 32
 *   uint8_t weights[4][panel][4]   FP4: as 4 bits, but each is the place of a weight plus 12 in
 *                                  FP4_NUMBERS
 *
 * Missing outputs and inputs weigh nothing. */
struct integer_weights {
    const uint8_t *panels; /* 64-byte aligned */
    enum integer_format format;
    size_t n, groups;
    struct columns_of columns; /* to compute; the rest of y is left alone */
};

static inline size_t integer_groups(size_t k)
{
    return (k + GROUP - 1) / GROUP;
}

/* Of a weight, as it is kept. */
static inline unsigned integer_bits(enum integer_format format)
{
    return format == INTEGER_8 ? 8 : format == INTEGER_6 ? 6 : 4;
}

/* What is multiplied for a weight of 0. */
static inline int integer_zero(enum integer_format format)
{
    return format == INTEGER_FP4 ? FP4_MOST : 1 << (integer_bits(format) - 1);
}

static inline size_t integer_group_bytes(enum integer_format format, size_t panel)
{
    return panel * (sizeof(uint16_t) + GROUP * integer_bits(format) / 8);
}

/* Inputs of a block: so many rows times groups that they stay in the second-level cache, beside the
 * panel that they are multiplied with. Smaller blocks stop and begin sums more often. */
enum { BLOCK_NUMBERS = 1 << 16, BLOCK_ROWS_MOST = 64 };

struct integer_inputs {
    int8_t values[BLOCK_NUMBERS];          /* [rows, groups * GROUP] -127..127 */
    float scales[BLOCK_NUMBERS / GROUP];   /* [rows, groups] */
    int32_t starts[BLOCK_NUMBERS / GROUP]; /* [rows, groups] -zero times the sum of the values */
    size_t rows, groups;
    size_t from; /* of the weights' groups */
};

struct integer_kernel {
    bool (*usable)(void); /* on this machine */
    size_t panel;
    /* Adds a block to y[rows, n], or begins with it, and with `bias` (may be NULL), if it is the
     * first: from == 0. */
    void (*add)(const struct integer_weights *weights, const struct integer_inputs *inputs,
                const float *bias, float *y);
};

/* That of kernel_get()'s machine. */
const struct integer_kernel *integer_kernel_get(void);

extern const struct integer_kernel integers_generic;
#ifdef MOED_X86
extern const struct integer_kernel integers_avx2, integers_avxvnni, integers_avx512vnni;
#endif
#ifdef MOED_NEON
extern const struct integer_kernel integers_dotprod;
#endif

#endif

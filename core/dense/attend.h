/* Attention of queries to a block of positions: the softmax goes on from block to block.
 *
 * Blocks begin at multiples of ATTEND_POSITIONS, whoever asks: every sum has one order, which does
 * not depend on how many queries are worked on together. Private to attention, and to kernels. */
#ifndef CORE_ATTEND_H
#define CORE_ATTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Positions of a block, and of a page of a session. */
enum { ATTEND_POSITIONS = 32 };

/* Keys and values of one head for a block of positions, of which queries see [from, end). Others
 * may hold anything. F32, or IEEE binary16 if `half`. */
struct attended {
    const void *keys;   /* [width, ATTEND_POSITIONS]: transposed */
    const void *values; /* [ATTEND_POSITIONS, pitch], of which `width` are the head's */
    size_t width, pitch;
    bool half;
    size_t from, end;
    size_t first; /* the block's first position, from which on queries' biases are */
};

/* One query of one head, between blocks. In the end its result is context / sum. */
struct attending {
    const float *query; /* [width] */
    const float *bias;  /* added to the scores of all positions; NULL: none */
    float *context;     /* [width] the values seen so far, weighted by exp(score - max) */
    float max, sum;     /* of the scores seen so far, of the weights */
    float weights[ATTEND_POSITIONS]; /* of the block's positions */
};

/* What a kernel has: for avx2, attend_avx2 and so on.
 *
 * attend: every query sees the block; scores are query * key * scale.
 * widen, narrow: IEEE binary16 to f32, exactly; f32 to the nearest binary16, what is larger than
 * the largest becomes the largest, NaN stays NaN. */
#define FUNCTION_NAME(isa, function) function##_##isa
#define FUNCTION_OF(isa, function)   FUNCTION_NAME(isa, function)

#endif

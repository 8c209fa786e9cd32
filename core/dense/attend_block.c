/* Attends to a block of positions. CMakeLists.txt compiles this file once for every instruction set
 * (isa.h).
 *
 * Keys lie transposed, so that a vector holds one number of several positions: a score is one sum
 * that walks the head's numbers upwards, and needs no sum across lanes. Queries that see the same
 * positions are worked on together, because they read the same keys and values; the bits of none
 * depend on it. */
#include <math.h>
#include <string.h>

#include "core/dense/attend.h"
#include "core/dense/kernel.h"
#include "core/dense/tile.h"
#include "core/half.h"

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));

DECLARE_ATTEND(ISA);

#define INLINE static inline __attribute__((always_inline))

/* Vectors of a block's scores; queries whose scores fit the registers together. */
enum {
    VECTORS = ATTEND_POSITIONS / LANES,
    TOGETHER = MAX_ROWS * 2 / VECTORS < 4 ? MAX_ROWS * 2 / VECTORS : 4,
};

INLINE vec load(const float *from)
{
    vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(float *to, vec value)
{
    memcpy(to, &value, sizeof value);
}

/* LANES numbers from `at` on. */
INLINE vec numbers(const void *from, size_t at, const bool half)
{
    if (!half)
        return load((const float *)from + at);
    const uint16_t *halfs = (const uint16_t *)from + at;
#ifdef LOAD_F16
    return LOAD_F16(halfs);
#else
    vec value;
    for (size_t lane = 0; lane < LANES; lane++)
        value[lane] = float_of_half(halfs[lane]);
    return value;
#endif
}

INLINE float number(const void *from, size_t at, const bool half)
{
    return half ? float_of_half(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

INLINE vec choose(ints mask, vec a, vec b)
{
    return (vec)((mask & (ints)a) | (~mask & (ints)b));
}

/* e^x for x <= 0, to about one unit in the last place; NaN stays NaN. x is n ln 2 + r with
 * |r| <= ln 2 / 2, and e^r a polynomial. */
INLINE vec exponential(vec x)
{
    const vec zero = {0};
    const float least = -87.0f, round = 12582912.0f; /* 1.5 * 2^23: adding it rounds */
    x = choose(x < zero + least, zero + least, x);
    vec shifted = x * 1.44269504f + round;
    vec n = shifted - round;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ints exponent = ((ints)shifted - (ints)(zero + round) + 127) << 23;
    return p * (vec)exponent;
}

/* The scores of `count` queries: [count, ATTEND_POSITIONS]. */
INLINE void multiply(const struct attended *block, const struct attending *queries,
                     const unsigned count, const bool half, vec scores[TOGETHER][VECTORS])
{
    vec sum[TOGETHER][VECTORS];
    memset(sum, 0, sizeof sum);
    for (size_t i = 0; i < block->width; i++)
#pragma GCC unroll 8
        for (unsigned v = 0; v < VECTORS; v++) {
            vec key = numbers(block->keys, i * ATTEND_POSITIONS + v * LANES, half);
#pragma GCC unroll 4
            for (unsigned q = 0; q < count; q++)
                sum[q][v] += key * queries[q].query[i];
        }
    memcpy(scores, sum, sizeof sum);
}

/* The scores as they are compared. */
INLINE void scale_scores(const struct attended *block, const struct attending *query, float scale,
                         vec scores[VECTORS])
{
    float bias[ATTEND_POSITIONS] = {0};
    size_t from = block->from;
    for (unsigned v = 0; v < VECTORS; v++)
        scores[v] *= scale;
    if (!query->bias)
        return;
    memcpy(bias + from, query->bias + block->first + from, (block->end - from) * sizeof *bias);
    for (unsigned v = 0; v < VECTORS; v++)
        scores[v] += load(bias + v * LANES);
}

/* Turns a query's scores into weights, [from, end) of them, and what it has so far into what it
 * would be under the new maximum. */
INLINE void weigh(const struct attended *block, struct attending *query, float scale,
                  vec scores[VECTORS])
{
    const vec zero = {0}, hidden = zero - INFINITY; /* not seen, or by its bias */
    vec most = hidden;
    ints index;
    scale_scores(block, query, scale, scores);
    for (int lane = 0; lane < LANES; lane++)
        index[lane] = lane;
    for (unsigned v = 0; v < VECTORS; v++, index += LANES) {
        ints seen = (index >= (int)block->from) & (index < (int)block->end);
        scores[v] = choose(seen, scores[v], hidden);
        most = choose(scores[v] > most, scores[v], most);
    }
    float max = query->max;
    for (unsigned lane = 0; lane < LANES; lane++)
        max = most[lane] > max ? most[lane] : max;
    vec sum = zero;
    for (unsigned v = 0; v < VECTORS; v++) {
        vec weight = choose(scores[v] != hidden, exponential(scores[v] - max), zero);
        store(query->weights + v * LANES, weight);
        sum += weight;
    }
    if (max > query->max) {
        const float factor = expf(query->max - max);
        query->sum *= factor;
        for (size_t i = 0; i < block->width; i++)
            query->context[i] *= factor;
        query->max = max;
    }
    float total = 0;
    for (unsigned lane = 0; lane < LANES; lane++)
        total += sum[lane];
    query->sum += total;
}

/* Adds the weighted values, `columns` vectors of them from `at` on. */
INLINE void add_columns(const struct attended *block, struct attending *queries,
                        const unsigned count, const bool half, size_t at, const unsigned columns)
{
    vec sum[TOGETHER][VECTORS];
#pragma GCC unroll 4
    for (unsigned q = 0; q < count; q++)
#pragma GCC unroll 8
        for (unsigned c = 0; c < columns; c++)
            sum[q][c] = load(queries[q].context + at + c * LANES);
    for (size_t i = block->from; i < block->end; i++)
#pragma GCC unroll 8
        for (unsigned c = 0; c < columns; c++) {
            vec value = numbers(block->values, i * block->pitch + at + c * LANES, half);
#pragma GCC unroll 4
            for (unsigned q = 0; q < count; q++)
                sum[q][c] += value * queries[q].weights[i];
        }
#pragma GCC unroll 4
    for (unsigned q = 0; q < count; q++)
#pragma GCC unroll 8
        for (unsigned c = 0; c < columns; c++)
            store(queries[q].context + at + c * LANES, sum[q][c]);
}

INLINE void add_values(const struct attended *block, struct attending *queries,
                       const unsigned count, const bool half)
{
    size_t at = 0;
    for (; at + VECTORS * LANES <= block->width; at += VECTORS * LANES)
        add_columns(block, queries, count, half, at, VECTORS);
    for (; at + LANES <= block->width; at += LANES)
        add_columns(block, queries, count, half, at, 1);
    for (; at < block->width; at++)
        for (unsigned q = 0; q < count; q++)
            for (size_t i = block->from; i < block->end; i++)
                queries[q].context[at] +=
                    queries[q].weights[i] * number(block->values, i * block->pitch + at, half);
}

/* All callers pass constants for count and half: loops unroll, and sums live in registers. */
INLINE void attend_together(const struct attended *block, struct attending *queries,
                            const unsigned count, const bool half, float scale)
{
    vec scores[TOGETHER][VECTORS];
    multiply(block, queries, count, half, scores);
    for (unsigned q = 0; q < count; q++)
        weigh(block, &queries[q], scale, scores[q]);
    add_values(block, queries, count, half);
}

INLINE void attend_all(const struct attended *block, struct attending *queries, size_t count,
                       const bool half, float scale)
{
    for (; count >= TOGETHER; count -= TOGETHER, queries += TOGETHER)
        attend_together(block, queries, TOGETHER, half, scale);
    for (; count > 0; count--, queries++)
        attend_together(block, queries, 1, half, scale);
}

void FUNCTION_OF(ISA, attend)(const struct attended *block, struct attending *queries, size_t count,
                              float scale)
{
    if (block->half)
        attend_all(block, queries, count, true, scale);
    else
        attend_all(block, queries, count, false, scale);
}

void FUNCTION_OF(ISA, widen)(const uint16_t *halfs, size_t count, float *floats)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        store(floats + i, numbers(halfs, i, true));
    for (; i < count; i++)
        floats[i] = float_of_half(halfs[i]);
}

void FUNCTION_OF(ISA, narrow)(const float *floats, size_t count, uint16_t *halfs)
{
    for (size_t i = 0; i < count; i++)
        halfs[i] = half_of_float(floats[i]);
}

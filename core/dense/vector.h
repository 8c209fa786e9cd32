/* Vectorized loops other than products. Sums are written so that any compiler keeps them in vector
 * registers. */
#ifndef CORE_VECTOR_H
#define CORE_VECTOR_H

#include <stddef.h>

/* Marks a function that is compiled once for every vector width and chosen when the program is
 * loaded. All versions give the same bits, because none may fuse a multiply with an add
 * (CMakeLists.txt). Off under sanitizers, whose runtime starts after ifunc resolvers run, and with
 * clang, which gives such functions a name that other files do not see. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(MOED_SANITIZED) && !defined(__clang__)
#define VECTORIZED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VECTORIZED
#endif

/* The compiler may not reorder a sum of floats, so a plain loop would be one addition after the
 * other. Eight running sums fix another order, the same on every machine. */
enum { DOT_LANES = 8 };

static inline float dot(const float *a, const float *b, size_t count)
{
    float lanes[DOT_LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + DOT_LANES <= count; i += DOT_LANES)
        for (size_t lane = 0; lane < DOT_LANES; lane++)
            lanes[lane] += a[i + lane] * b[i + lane];
    for (; i < count; i++)
        sum += a[i] * b[i];
    for (size_t lane = 0; lane < DOT_LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static inline float sum_of(const float *values, size_t count)
{
    float lanes[DOT_LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + DOT_LANES <= count; i += DOT_LANES)
        for (size_t lane = 0; lane < DOT_LANES; lane++)
            lanes[lane] += values[i + lane];
    for (; i < count; i++)
        sum += values[i];
    for (size_t lane = 0; lane < DOT_LANES; lane++)
        sum += lanes[lane];
    return sum;
}

/* The lanes' sum, pair by pair. */
static inline double sum_of_lanes(double lanes[DOT_LANES])
{
    for (size_t half = DOT_LANES / 2; half > 0; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            lanes[lane] += lanes[half + lane];
    return lanes[0];
}

/* In double: thousands of squares, all of one sign, would lose digits in f32. */
static inline double total_of(const float *values, size_t count)
{
    double lanes[DOT_LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + DOT_LANES <= count; i += DOT_LANES)
        for (size_t lane = 0; lane < DOT_LANES; lane++)
            lanes[lane] += values[i + lane];
    for (; i < count; i++)
        sum += values[i];
    return sum + sum_of_lanes(lanes);
}

/* The squares of what values are off `mean`, likewise. */
static inline double squares_of(const float *values, double mean, size_t count)
{
    double lanes[DOT_LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + DOT_LANES <= count; i += DOT_LANES)
        for (size_t lane = 0; lane < DOT_LANES; lane++)
            lanes[lane] += (values[i + lane] - mean) * (values[i + lane] - mean);
    for (; i < count; i++)
        sum += (values[i] - mean) * (values[i] - mean);
    return sum + sum_of_lanes(lanes);
}

/* The largest of at least one value, none of them NaN. Compares, because fmaxf() would be a call.
 * With so many lanes the inner loop remains one, which is made of vectors. */
static inline float max_of(const float *values, size_t count)
{
    enum { MAX_LANES = 32 };
    float lanes[MAX_LANES], max = values[0];
    size_t i = 0;
    for (size_t lane = 0; lane < MAX_LANES; lane++)
        lanes[lane] = max;
    for (; i + MAX_LANES <= count; i += MAX_LANES)
        for (size_t lane = 0; lane < MAX_LANES; lane++)
            lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    for (; i < count; i++)
        max = values[i] > max ? values[i] : max;
    for (size_t lane = 0; count >= MAX_LANES && lane < MAX_LANES; lane++)
        max = lanes[lane] > max ? lanes[lane] : max;
    return max;
}

/* y += factor * x */
static inline void add_scaled(float *y, float factor, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        y[i] += factor * x[i];
}

#endif

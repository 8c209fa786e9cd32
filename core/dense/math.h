/* Math functions that several layers use. Each has one definition, so that an activation gives the
 * same bits wherever it is applied. All propagate NaN, as PyTorch does. */
#ifndef CORE_MATH_H
#define CORE_MATH_H

#include <math.h>

#include "core/dense/vector.h"

static inline float relu(float v)
{
    return v < 0.0f ? 0.0f : v;
}

static inline float sigmoid(float v)
{
    return 1.0f / (1.0f + expf(-v));
}

static inline float silu(float v)
{
    return v / (1.0f + expf(-v));
}

static inline float gelu_erf(float v)
{
    float root_half = 0.70710678118654752f;
    return 0.5f * v * (1.0f + erff(v * root_half));
}

static inline float gelu_tanh(float v)
{
    float root_two_over_pi = 0.79788456080286536f;
    return 0.5f * v * (1.0f + tanhf(root_two_over_pi * (v + 0.044715f * v * v * v)));
}

/* log(1 + e^v), which is v itself from 20 on. */
static inline float softplus(float v)
{
    return v > 20.0f ? v : log1pf(expf(v));
}

static inline float clamp(float v, float least, float most)
{
    return v < least ? least : v > most ? most : v;
}

static inline float hardsigmoid(float v)
{
    return clamp(v + 3.0f, 0.0f, 6.0f) / 6.0f;
}

static inline float sum_of(const float *values, size_t count)
{
    float sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return sum;
}

/* Divides by `whole`; gives equal shares if that is 0. */
static inline void divide_by(float whole, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = whole != 0 ? values[i] / whole : 1.0f / (float)count;
}

/* p = softmax(x) of at least one number; p may be x. `entropy` (may be NULL) receives that of p, in
 * nats. One logarithm suffices: with d = x - max and z = sum exp(d), it is log z - sum(p d). */
static inline void softmax(const float *x, size_t count, float *p, float *entropy)
{
    float least = -1000; /* its exp is 0, and 0 * least is 0, where 0 * -infinity is NaN */
    float max = max_of(x, count);
    float sum = 0, weighted = 0;
    for (size_t i = 0; i < count; i++) {
        float d = x[i] - max < least ? least : x[i] - max;
        p[i] = expf(d);
        sum += p[i];
        weighted += p[i] * d;
    }
    for (size_t i = 0; i < count; i++)
        p[i] /= sum;
    if (entropy)
        *entropy = fmaxf(logf(sum) - weighted / sum, 0.0f);
}

#endif

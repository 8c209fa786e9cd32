/* Math functions that several layers use. Each has one definition, so that an activation gives the
 * same bits wherever it is applied. All propagate NaN, as PyTorch does. */
#ifndef CORE_MATH_H
#define CORE_MATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/dense/vector.h"

/* e^x of |x| < 2^20 is 2^turns times the answer, within two units in the last place. Unlike expf()
 * none of these is a call, so that loops over them are vectorized. */
static inline float exp_parts(float x, int32_t *turns)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: the sum's last bits are a whole number */
    float sum = x * 1.44269504f + round;
    float whole = sum - round;
    float r = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    int32_t bits, zero;
    memcpy(&bits, &sum, sizeof bits);
    memcpy(&zero, &round, sizeof zero);
    *turns = bits - zero;
    return p * (r * r) + r + 1.0f;
}

/* 2^n of -126 <= n <= 127 */
static inline float power_of_two(int32_t n)
{
    uint32_t bits = (uint32_t)(n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* e^x of x <= 0, and 0 for what is below the normal numbers. */
static inline float exp_below(float x)
{
    int32_t turns;
    x = x < -87.0f ? -87.0f : x;
    float part = exp_parts(x, &turns);
    return x <= -87.0f ? 0 : part * power_of_two(turns);
}

/* e^x of every x, subnormal answers too. The power is two factors, as it may be no float itself. */
static inline float exp_of(float x)
{
    int32_t turns;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float part = exp_parts(x, &turns);
    int32_t half = turns >> 1;
    return part * power_of_two(half) * power_of_two(turns - half);
}

/* erf(x) within 1e-7. The polynomials were fitted for the least largest error: erf(x) / x in x^2
 * below 0.75, and -log(erfc(x)) from there to 4, where erf is 1. No call either. */
static inline float error_function(float x)
{
    float size = fabsf(x), square = x * x;
    size = size > 4.0f ? 4.0f : size;
    float p = -6.76109686e-4f;
    p = p * square + 5.11598186e-3f;
    p = p * square - 2.68354346e-2f;
    p = p * square + 1.12833930e-1f;
    p = p * square - 3.76126199e-1f;
    p = p * square + 1.12837917f;
    float q = -2.11863944e-4f;
    q = q * size + 3.19421576e-3f;
    q = q * size - 2.28072425e-2f;
    q = q * size + 1.05089428e-1f;
    q = q * size + 6.35916533e-1f;
    q = q * size + 1.12839510f;
    q = q * size + 2.93491048e-5f;
    float near = p * x, far = copysignf(1.0f - exp_below(-q), x);
    return size < 0.75f ? near : far;
}

/* tanh(x) within three units in the last place. Near 0, where 1 - e^-2x cancels, tanh(x) / x is a
 * polynomial in x^2. This one and those below were fitted for the least largest relative error. */
static inline float tanh_of(float x)
{
    float size = fabsf(x), square = x * x, e = exp_below(-2.0f * size);
    float p = 1.63155636e-2f;
    p = p * square - 5.25894016e-2f;
    p = p * square + 1.33188788e-1f;
    p = p * square - 3.33327952e-1f;
    p = p * square + 9.99999968e-1f;
    float near = p * x, far = copysignf((1.0f - e) / (1.0f + e), x);
    return size < 0.55f ? near : far;
}

/* e^x - 1 of x <= 0 */
static inline float exp_less_one(float x)
{
    float p = 1.19574474e-3f;
    p = p * x + 8.25882263e-3f;
    p = p * x + 4.16532065e-2f;
    p = p * x + 1.66665558e-1f;
    p = p * x + 4.99999966e-1f;
    p = p * x + 1.0f;
    float near = p * x, far = exp_below(x) - 1.0f;
    return x > -0.35f ? near : far;
}

/* log(1 + x) of 0 <= x <= 1 */
static inline float log_of_more(float x)
{
    float p = 5.23267193e-3f;
    p = p * x - 2.95051449e-2f;
    p = p * x + 7.82257898e-2f;
    p = p * x - 1.36632310e-1f;
    p = p * x + 1.91059991e-1f;
    p = p * x - 2.48429800e-1f;
    p = p * x + 3.33190965e-1f;
    p = p * x - 4.99994931e-1f;
    p = p * x + 9.99999970e-1f;
    return p * x;
}

/* log(x) of every x: of x = 2^n m with m between the roots of 1/2 and 2, it is n ln 2 + log(m). */
static inline float log_of(float x)
{
    bool small = x < 1.17549435e-38f;          /* its exponent does not tell its size */
    float scaled = small ? x * 8388608.0f : x; /* 2^23 */
    uint32_t bits, root = 0x3F3504F3;          /* of 1/2 */
    memcpy(&bits, &scaled, sizeof bits);
    int32_t turns = (int32_t)(bits - root) >> 23;
    bits -= (uint32_t)turns << 23;
    float m, n = (float)(small ? turns - 23 : turns);
    memcpy(&m, &bits, sizeof m);
    float r = m - 1.0f;
    float p = 7.0376836292e-2f;
    p = p * r - 1.1514610310e-1f;
    p = p * r + 1.1676998740e-1f;
    p = p * r - 1.2420140846e-1f;
    p = p * r + 1.4249322787e-1f;
    p = p * r - 1.6668057665e-1f;
    p = p * r + 2.0000714765e-1f;
    p = p * r - 2.4999993993e-1f;
    p = p * r + 3.3333331174e-1f;
    p = p * r * (r * r) - n * 2.12194440e-4f - 0.5f * (r * r);
    float log = r + p + n * 0.693359375f;
    log = x < INFINITY ? log : x;
    log = x <= 0 ? -INFINITY : log;
    return x < 0 ? NAN : log;
}

static inline float relu(float v)
{
    return v < 0.0f ? 0.0f : v;
}

/* v * sigmoid(s), which is no call. */
static inline float times_sigmoid(float v, float s)
{
    float e = exp_below(-fabsf(s));
    return (s < 0.0f ? v * e : v) / (1.0f + e);
}

static inline float sigmoid(float v)
{
    float e = exp_of(-fabsf(v));
    return (v < 0.0f ? e : 1.0f) / (1.0f + e);
}

static inline float silu(float v)
{
    return times_sigmoid(v, v);
}

static inline float gelu_erf(float v)
{
    float root_half = 0.70710678118654752f;
    return 0.5f * v * (1.0f + error_function(v * root_half));
}

static inline float gelu_tanh(float v)
{
    float root_two_over_pi = 0.79788456080286536f;
    return 0.5f * v * (1.0f + tanh_of(root_two_over_pi * (v + 0.044715f * v * v * v)));
}

/* log(1 + e^v) = max(v, 0) + log(1 + e^-|v|) */
static inline float softplus(float v)
{
    return (v < 0.0f ? 0.0f : v) + log_of_more(exp_of(-fabsf(v)));
}

static inline float clamp(float v, float least, float most)
{
    return v < least ? least : v > most ? most : v;
}

static inline float hardsigmoid(float v)
{
    return clamp(v + 3.0f, 0.0f, 6.0f) / 6.0f;
}

/* Divides by `whole`; gives equal shares if that is 0. */
static inline void divide_by(float whole, float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = whole != 0 ? values[i] / whole : 1.0f / (float)count;
}

/* p = softmax(x) of at least one number (softmax.c). `entropy` (may be NULL) receives that of p, in
 * nats; p may be x without it. */
void softmax(const float *x, size_t count, float *p, float *entropy);

/* y = log(softmax(x)) of at least one number; y may be x. */
void log_softmax(const float *x, size_t count, float *y);

#endif

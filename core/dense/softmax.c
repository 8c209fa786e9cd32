/* softmax and its logarithm. */
#include "core/dense/math.h"

/* One logarithm suffices: with d = x - max and z = sum exp(d), it is log z - sum(p d) / z. */
static float entropy_of(const float *x, float max, float z, const float *p, size_t count)
{
    const float least = -1000; /* 0 * least is 0, where 0 * -infinity is NaN */
    float weighted = 0;
    for (size_t i = 0; i < count; i++)
        weighted += p[i] * (x[i] - max < least ? least : x[i] - max);
    const float entropy = log_of(z) - weighted / z;
    return entropy < 0 ? 0 : entropy;
}

VECTORIZED void softmax(const float *x, size_t count, float *p, float *entropy)
{
    const float max = max_of(x, count);
    for (size_t i = 0; i < count; i++)
        p[i] = exp_of(x[i] - max);
    const float sum = sum_of(p, count);
    if (entropy)
        *entropy = entropy_of(x, max, sum, p, count);
    for (size_t i = 0; i < count; i++)
        p[i] /= sum;
}

/* The sum of exp(x - max), in as many sums as max_of() has. */
static inline float sum_of_exps(const float *x, float max, size_t count)
{
    enum { LANES = 32 };
    float lanes[LANES] = {0}, sum = 0;
    for (; count >= LANES; count -= LANES, x += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            lanes[lane] += exp_of(x[lane] - max);
    for (size_t lane = 0; lane < count; lane++)
        lanes[lane] += exp_of(x[lane] - max);
    for (size_t lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

VECTORIZED void log_softmax(const float *x, size_t count, float *y)
{
    const float max = max_of(x, count);
    const float logarithm = log_of(sum_of_exps(x, max, count));
    for (size_t i = 0; i < count; i++)
        y[i] = x[i] - max - logarithm;
}

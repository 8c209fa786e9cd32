/* Buckets of latency.h: up to 256 each value has its own; above, a power of two has 128. */
#include "clients/c/moectl/latency.h"

#include <math.h>
#include <stddef.h>

static size_t bucket_of(uint64_t value)
{
    if (value < 2 * LATENCY_STEPS)
        return (size_t)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - 7;
    return (size_t)(shift * LATENCY_STEPS + (value >> shift));
}

/* The middle of a bucket. */
static double value_of(size_t bucket)
{
    if (bucket < 2 * LATENCY_STEPS)
        return (double)bucket;
    int shift = (int)(bucket / LATENCY_STEPS) - 1;
    return ldexp((double)(bucket % LATENCY_STEPS) + LATENCY_STEPS + 0.5, shift);
}

void latency_add(struct latency *latency, uint64_t nanoseconds)
{
    latency->counts[bucket_of(nanoseconds)]++;
    if (latency->count == 0 || nanoseconds < latency->least)
        latency->least = nanoseconds;
    if (nanoseconds > latency->most)
        latency->most = nanoseconds;
    latency->count++;
    latency->sum += (double)nanoseconds;
}

void latency_merge(struct latency *into, const struct latency *from)
{
    if (from->count == 0)
        return;
    for (size_t i = 0; i < LATENCY_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    if (into->count == 0 || from->least < into->least)
        into->least = from->least;
    if (from->most > into->most)
        into->most = from->most;
    into->count += from->count;
    into->sum += from->sum;
}

double latency_percentile(const struct latency *latency, double part)
{
    double wanted = ceil(part * (double)latency->count);
    uint64_t rank = wanted > 1 ? (uint64_t)wanted : 1, seen = 0;
    for (size_t i = 0; rank < latency->count && i < LATENCY_BUCKETS; i++) {
        seen += latency->counts[i];
        if (seen >= rank)
            return fmin(fmax(value_of(i), (double)latency->least), (double)latency->most);
    }
    return (double)latency->most;
}

double latency_mean(const struct latency *latency)
{
    return latency->count > 0 ? latency->sum / (double)latency->count : 0;
}

/* Latencies in a histogram of fixed size: buckets grow with what they hold, so that a value is
 * known to 1/128 of itself from nanoseconds to centuries. */
#ifndef MOECTL_LATENCY_H
#define MOECTL_LATENCY_H

#include <stdint.h>

enum { LATENCY_STEPS = 128, LATENCY_BUCKETS = 58 * LATENCY_STEPS };

struct latency {
    uint64_t counts[LATENCY_BUCKETS];
    uint64_t count, least, most; /* least and most are exact; nanoseconds */
    double sum;                  /* nanoseconds */
};

void latency_add(struct latency *latency, uint64_t nanoseconds);
void latency_merge(struct latency *into, const struct latency *from);

/* The value that `part` (0 to 1) of all are not above, in nanoseconds; 0 when there are none. */
double latency_percentile(const struct latency *latency, double part);

double latency_mean(const struct latency *latency);

#endif

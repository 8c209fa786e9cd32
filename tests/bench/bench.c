/* The clock of the benchmarks is the CPU time of the calling thread. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Long compared with the clock's resolution, short enough for thousands of points. */
static const double MIN_SECONDS = 0.008;

enum { ALIGNMENT = 64 };

double bench_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void *bench_memory(size_t bytes)
{
    void *memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!memory) {
        fprintf(stderr, "bench: no memory for %zu bytes\n", bytes);
        abort();
    }
    memset(memory, 1, bytes);
    return memory;
}

void bench_fill(float *values, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        values[i] = (float)(int)(seed >> 33 & 127) / 64.0f - 1.0f;
    }
}

double bench_time(void (*run)(void *context), void *context)
{
    run(context);
    const double begin = bench_seconds();
    double now = begin;
    size_t calls = 0;
    for (size_t batch = 1; now - begin < MIN_SECONDS; batch *= 2) {
        for (size_t i = 0; i < batch; i++)
            run(context);
        calls += batch;
        now = bench_seconds();
    }
    return (now - begin) / (double)calls;
}

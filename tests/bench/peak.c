/* Measures the most multiply-adds and the most bytes per second of this machine, to which all other
 * figures are relative. Compiled for the machine that it runs on. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));

/* Independent sums: more than two adders with a latency of four or five keep in flight; with the
 * two factors they fit sixteen registers. */
enum { SUMS = 12, STEPS = 4096 };
/* The best of this many runs counts, because other processes slow some of them down. */
enum { REPEATS = 5 };

static void multiply_add(void *context)
{
    vec *const sums = context;
    vec sum[SUMS];
    vec factor = sums[0] * 0.0f + 0.999f, term = sums[0] * 0.0f + 0.001f;
    for (size_t i = 0; i < SUMS; i++)
        sum[i] = sums[i];
    for (size_t step = 0; step < STEPS; step++)
#pragma GCC unroll 12
        for (size_t i = 0; i < SUMS; i++)
            sum[i] = sum[i] * factor + term;
    for (size_t i = 0; i < SUMS; i++)
        sums[i] = sum[i];
}

double bench_peak_gflops(void)
{
    vec *sums = bench_memory(SUMS * sizeof *sums);
    bench_fill((float *)sums, (size_t)SUMS * LANES, 1);
    double best = 0;
    for (unsigned i = 0; i < REPEATS; i++) {
        const double flops = 2.0 * STEPS * SUMS * LANES / bench_time(multiply_add, sums);
        best = flops > best ? flops : best;
    }
    free(sums);
    return best * 1e-9;
}

enum { COPIED = 128 << 20 };

static void copy(void *context)
{
    char *const memory = context;
    memcpy(memory, memory + COPIED, COPIED);
    __asm__ volatile("" : : "r"(memory) : "memory"); /* keeps the copy, which is never read */
}

double bench_copy_gbytes(void)
{
    char *memory = bench_memory(2 * (size_t)COPIED);
    double best = 0;
    for (unsigned i = 0; i < REPEATS; i++) {
        const double rate = 2.0 * COPIED / bench_time(copy, memory);
        best = rate > best ? rate : best;
    }
    free(memory);
    return best * 1e-9;
}

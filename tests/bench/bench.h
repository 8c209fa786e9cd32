/* Shared by the compiled benchmarks: a clock, numbers, a timing loop.
 *
 * The clock is the CPU time of the calling thread. The benchmarks compute on one thread and never
 * wait, so on an idle machine this equals wall time. On a busy machine it excludes the time of
 * other processes, though not their effect on the caches. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

double bench_seconds(void);

/* Allocates memory and writes it: pages never written all share one zero page, which would make
 * memory-bound figures several times too good. Aborts if out of memory. */
void *bench_memory(size_t bytes);

/* Fills with multiples of 1/64 between -1 and 1, which are exact in F32, F16 and BF16, so that one
 * reference checks a product in every dtype. */
void bench_fill(float *values, size_t count, uint64_t seed);

/* CPU seconds per call of `run`: called once to warm up, then for at least MIN_SECONDS. */
double bench_time(void (*run)(void *context), void *context);

/* 10^9 floating-point operations per second of one thread that only multiplies and adds. */
double bench_peak_gflops(void);

/* 10^9 bytes per second, reads plus writes, of one thread that copies far more than the caches
 * hold. */
double bench_copy_gbytes(void);

#endif

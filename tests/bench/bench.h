/* What the compiled benchmarks share: a clock, numbers, a timing loop.
 *
 * The clock is the CPU time of the calling thread. These benchmarks compute on one thread and wait
 * for nothing, so on an idle machine it is the time on the wall; on a busy one it leaves out what
 * the neighbours took (but not what they did to the caches). */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

double bench_seconds(void);

/* Memory that is written before anything is timed: pages never written are all the one zero page,
 * and memory-bound figures would come out several times too good. Aborts when there is none. */
void *bench_memory(size_t bytes);

/* Multiples of 1/64 between -1 and 1: exact in F32, F16 and BF16, so that one reference checks a
 * product in every dtype. */
void bench_fill(float *values, size_t count, uint64_t seed);

/* CPU seconds per call of `run`: called once to warm up, then for at least MIN_SECONDS. */
double bench_time(void (*run)(void *context), void *context);

/* 10^9 floating point operations per second of one thread that does nothing but multiply-adds. */
double bench_peak_gflops(void);

/* 10^9 bytes per second that one thread reads and writes, together, copying far more than the
 * caches hold. */
double bench_copy_gbytes(void);

#endif

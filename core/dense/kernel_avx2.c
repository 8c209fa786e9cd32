/* The kernel for AVX2, FMA and F16C: 16 registers of 8 floats. */
#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>

/* __builtin_cpu_supports() does not know F16C everywhere; every processor with AVX2 has it, but a
 * hypervisor may hide it. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#define KERNEL         kernel_avx2
#define KERNEL_NAME    "avx2"
#define LANES          8
#define MAX_ROWS       6
#define USABLE         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()
#define LOAD_16(from)  _mm_loadu_si128((const __m128i *)(const void *)(from))
#define LOAD_F16(from) (vec) _mm256_cvtph_ps(LOAD_16(from))
#define LOAD_8(from)   _mm_loadl_epi64((const __m128i *)(const void *)(from))
#define LOAD_I8(from)  (vec) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(LOAD_8(from)))
#include "core/dense/kernel.inc.h"

/* The kernel for AVX-512: 32 registers of 16 floats. */
#include <immintrin.h>

#define KERNEL      kernel_avx512
#define KERNEL_NAME "avx512"
#define LANES       16
#define MAX_ROWS    12
#define USABLE                                                                                     \
    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                     \
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
#define LOAD_16(from)  _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define LOAD_F16(from) (vec) _mm512_cvtph_ps(LOAD_16(from))
#define LOAD_8(from)   _mm_loadu_si128((const __m128i *)(const void *)(from))
#define LOAD_I8(from)  (vec) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(LOAD_8(from)))
#include "core/dense/kernel.inc.h"

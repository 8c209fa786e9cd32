/* The instruction sets that kernels are compiled for. CMakeLists.txt compiles kernel.c once and
 * tile.c several times for each of them, and defines ISA_AVX512, ISA_AVX2, ISA_NEON or none. They
 * differ in
 *
 *   ISA         its name, which is also the kernel's
 *   LANES       floats per vector
 *   MAX_ROWS    rows of a tile: MAX_ROWS x 2 sums, 2 weights and 1 input fit the registers
 *   USABLE      an expression: can this machine run it?
 *   LOAD_F16(p) LANES 16-bit floats at p as a vector of floats; optional
 *   LOAD_I8(p)  LANES 8-bit integers at p as a vector of floats; optional
 *   LOAD_F8(p)  LANES numbers of FP8 (E4M3) at p as floats, 2^-8 of each; where LOAD_F16 is: they
 *               are widened to halfs first, whose exponents are biased by 8 more
 *
 * Everything else is written once, with GCC's vector extensions: only widening F16, I8 and FP8
 * needs intrinsics. */
#ifndef CORE_ISA_H
#define CORE_ISA_H

#include <stdbool.h>
#include <stdint.h>

/* What is left of a signed octet, widened and shifted by 7: all bits but the sign's second. */
enum { FP8_AS_HALF = (int16_t)0xBFFF };

/* 32 registers of 16 floats. */
#if defined(ISA_AVX512)
#include <immintrin.h>
#define ISA      avx512
#define LANES    16
#define MAX_ROWS 12
#define USABLE                                                                                     \
    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                     \
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
#define LOAD_16(from)  _mm256_loadu_si256((const __m256i *)(const void *)(from))
#define LOAD_F16(from) (vec) _mm512_cvtph_ps(LOAD_16(from))
#define LOAD_8(from)   _mm_loadu_si128((const __m128i *)(const void *)(from))
#define LOAD_I8(from)  (vec) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(LOAD_8(from)))
#define LOAD_F8(from)                                                                              \
    (vec) _mm512_cvtph_ps(_mm256_and_si256(                                                        \
        _mm256_slli_epi16(_mm256_cvtepi8_epi16(LOAD_8(from)), 7), _mm256_set1_epi16(FP8_AS_HALF)))

/* 16 registers of 8 floats. */
#elif defined(ISA_AVX2)
#include <cpuid.h>
#include <immintrin.h>

/* Some compilers' __builtin_cpu_supports() does not know F16C. Every processor with AVX2 has it,
 * but a hypervisor may hide it. */
static inline bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#define ISA            avx2
#define LANES          8
#define MAX_ROWS       6
#define USABLE         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()
#define LOAD_16(from)  _mm_loadu_si128((const __m128i *)(const void *)(from))
#define LOAD_F16(from) (vec) _mm256_cvtph_ps(LOAD_16(from))
#define LOAD_8(from)   _mm_loadl_epi64((const __m128i *)(const void *)(from))
#define LOAD_I8(from)  (vec) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(LOAD_8(from)))
#define LOAD_F8(from)                                                                              \
    (vec) _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(LOAD_8(from)), 7),        \
                                        _mm_set1_epi16(FP8_AS_HALF)))

/* AArch64: 32 registers of 4 floats, on every machine. */
#elif defined(ISA_NEON)
#include <arm_neon.h>
#include <string.h>

/* Widens four integers. NEON loads eight, but after the last panel only four are readable. */
static inline int16x4_t neon_four(const void *from)
{
    uint32_t four;
    memcpy(&four, from, sizeof four);
    return vget_low_s16(vmovl_s8(vreinterpret_s8_u64(vcreate_u64(four))));
}

static inline float32x4_t neon_widen_f8(const void *from)
{
    int16x4_t halfs = vand_s16(vshl_n_s16(neon_four(from), 7), vdup_n_s16(FP8_AS_HALF));
    return vcvt_f32_f16(vreinterpret_f16_s16(halfs));
}

#define ISA            neon
#define LANES          4
#define MAX_ROWS       12
#define USABLE         true
#define LOAD_F16(from) (vec) vcvt_f32_f16(vld1_f16((const float16_t *)(const void *)(from)))
#define LOAD_I8(from)  (vec) vcvtq_f32_s32(vmovl_s16(neon_four(from)))
#define LOAD_F8(from)  (vec) neon_widen_f8(from)

/* Any machine; on x86-64 this is SSE2. */
#else
#define ISA      generic
#define LANES    4
#define MAX_ROWS 6
#define USABLE   true
#endif

/* Two vectors wide: one row of a tile then needs two weights and one input for two multiply-adds.
 * Six rows (twelve with 32 registers) hide the latency of the adders. */
enum { PANEL = 2 * LANES };

#endif

/* The instruction sets that integers.c is compiled for. They differ in
 *
 *   INTEGERS       its name, which is also the kernel's
 *   LANES          32-bit numbers per vector
 *   MAX_ROWS       rows of a tile: MAX_ROWS x 2 sums fit the registers with what is added to them
 *   USABLE         an expression: can this machine run it?
 *   WIDE_INPUTS    8-bit weights are multiplied with inputs of 16 bits, which widen() makes
 *   fp4_numbers    the FP4_NUMBERS of places, in octets
 *   add_8, add_6,  add the products of LANES quads of weights, each with its zero, with one quad of
 *   add_4          inputs to LANES sums, which began as first_8(start), first_6(start) ...;
 *                  add_6 also those of FP4
 *   total_4        those sums, where they have another form meanwhile
 *   multiply_add   fma(a, b, c)
 *   PREFETCHES     whether a tile prefetches weights. Zen 4, which is what AVX-512 VNNI was
 *                  measured on, reads 1.1 to 1.3 times as fast without, but where 4 bits keep it
 *                  busy */
#ifndef CORE_INTEGERS_ISA_H
#define CORE_INTEGERS_ISA_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(ISA_AVX512VNNI)
#include <immintrin.h>
#define INTEGERS                 avx512vnni
#define LANES                    16
#define MAX_ROWS                 8
#define PREFETCHES(format, rows) (integer_bits(format) == 4 && (rows) > 4)
#define USABLE                                                                                     \
    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                     \
        __builtin_cpu_supports("avx512vnni")
#elif defined(ISA_AVXVNNI)
#include <cpuid.h>
#include <immintrin.h>

/* Some compilers' __builtin_cpu_supports() does not know it: bit 4 of EAX, leaf 7, subleaf 1. */
static inline bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

#define INTEGERS avxvnni
#define LANES    8
#define MAX_ROWS 4
#define USABLE   __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_avxvnni()
#elif defined(ISA_AVX2)
#include <immintrin.h>
#define INTEGERS    avx2
#define LANES       8
#define MAX_ROWS    4
#define USABLE      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
#define WIDE_INPUTS 1
#elif defined(ISA_DOTPROD)
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define INTEGERS dotprod
#define LANES    4
#define MAX_ROWS 8
#define USABLE   getauxval(AT_HWCAP) & HWCAP_ASIMDDP
#else
#define INTEGERS generic
#define LANES    4
#define MAX_ROWS 2
#define USABLE   true
#endif

#ifndef PREFETCHES
#define PREFETCHES(format, rows) true
#endif
#ifndef WIDE_INPUTS
#define WIDE_INPUTS 0
#endif

typedef int32_t integers __attribute__((vector_size(LANES * 4)));
typedef float floats __attribute__((vector_size(LANES * 4)));

INLINE int32_t quad_at(const void *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return quad;
}

/* ---- multiplies and adds of floats ---- */

#if defined(ISA_AVX512VNNI)
INLINE floats multiply_add(floats a, floats b, floats c)
{
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif defined(ISA_AVXVNNI) || defined(ISA_AVX2)
INLINE floats multiply_add(floats a, floats b, floats c)
{
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#elif defined(ISA_DOTPROD)
INLINE floats multiply_add(floats a, floats b, floats c)
{
    return (floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
INLINE floats multiply_add(floats a, floats b, floats c)
{
    for (size_t lane = 0; lane < LANES; lane++)
        c[lane] = fmaf(a[lane], b[lane], c[lane]);
    return c;
}
#endif

/* ---- numbers of FP4 ---- */

#if defined(ISA_AVX512VNNI)
INLINE integers fp4_numbers(integers places)
{
    __m128i numbers = _mm_loadu_si128((const __m128i *)(const void *)FP4_NUMBERS);
    return (integers)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(numbers), (__m512i)places);
}
#elif defined(ISA_AVXVNNI) || defined(ISA_AVX2)
INLINE integers fp4_numbers(integers places)
{
    __m128i numbers = _mm_loadu_si128((const __m128i *)(const void *)FP4_NUMBERS);
    return (integers)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(numbers), (__m256i)places);
}
#elif defined(ISA_DOTPROD)
INLINE integers fp4_numbers(integers places)
{
    return (integers)vqtbl1q_u8(vld1q_u8(FP4_NUMBERS), (uint8x16_t)places);
}
#else
INLINE integers fp4_numbers(integers places)
{
    uint8_t octets[sizeof places];
    memcpy(octets, &places, sizeof octets);
    for (size_t i = 0; i < sizeof octets; i++)
        octets[i] = FP4_NUMBERS[octets[i]];
    memcpy(&places, octets, sizeof places);
    return places;
}
#endif

/* ---- sums of integers ---- */

#if defined(ISA_AVX2)

INLINE __m256i quad_256(const void *x)
{
    return _mm256_set1_epi32(quad_at(x));
}

/* vpmaddubsw would add two products of 8 bits in 16, where they may not fit. So the four weights of
 * a quad become two times two numbers of 16 bits, the even and the odd ones. Inputs lie likewise:
 * x[0], x[2], x[1], x[3]. */
INLINE void widen(const int8_t *values, size_t count, int16_t *wide)
{
    const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
    for (size_t i = 0; i < count; i += 16) {
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(values + i));
        _mm256_storeu_si256((__m256i *)(void *)(wide + i),
                            _mm256_cvtepi8_epi16(_mm_shuffle_epi8(part, order)));
    }
}

/* Adds now. Otherwise GCC adds in another order, which keeps the products of a group until its end,
 * on the stack: with 4 bits that takes a third longer. */
INLINE integers add_now(integers sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

INLINE integers first_8(int32_t start)
{
    return (integers)_mm256_set1_epi32(start);
}

INLINE integers add_8(integers sum, integers weights, const int16_t *x)
{
    __m256i even = _mm256_and_si256((__m256i)weights, _mm256_set1_epi16(0xFF));
    __m256i odd = _mm256_srli_epi16((__m256i)weights, 8);
    sum = add_now(sum + (integers)_mm256_madd_epi16(even, quad_256(x)));
    return add_now(sum + (integers)_mm256_madd_epi16(odd, quad_256(x + 2)));
}

/* Two products of 16 bits, at most 2 x 63 x 127, fit. */
INLINE integers first_6(int32_t start)
{
    return (integers)_mm256_set1_epi32(start);
}

INLINE integers add_6(integers sum, integers weights, const int8_t *x)
{
    __m256i pairs = _mm256_maddubs_epi16((__m256i)weights, quad_256(x));
    return add_now(sum + (integers)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Sixteen numbers of 16 bits: at most 8 x 2 products below 16 x 128, which fit. */
INLINE integers first_4(int32_t start)
{
    (void)start;
    return (integers){0};
}

INLINE integers add_4(integers sum, integers weights, const int8_t *x)
{
    __m256i pairs = _mm256_maddubs_epi16((__m256i)weights, quad_256(x));
    return add_now((integers)_mm256_add_epi16((__m256i)sum, pairs));
}

INLINE integers total_4(integers sum, int32_t start)
{
    return (integers)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1)) + start;
}

#else

#if defined(ISA_AVX512VNNI)
INLINE integers add_products(integers sum, integers weights, const int8_t *x)
{
    return (integers)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weights,
                                         _mm512_set1_epi32(quad_at(x)));
}
#elif defined(ISA_AVXVNNI)
INLINE integers add_products(integers sum, integers weights, const int8_t *x)
{
    return (integers)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)weights,
                                             _mm256_set1_epi32(quad_at(x)));
}
#elif defined(ISA_DOTPROD)
/* Both factors are signed: weights of 6 bits are small enough, and add_8() makes those of 8 so. */
INLINE integers add_products(integers sum, integers weights, const int8_t *x)
{
    return (integers)vdotq_s32((int32x4_t)sum, (int8x16_t)weights,
                               (int8x16_t)vdupq_n_s32(quad_at(x)));
}
#else
INLINE integers add_products(integers sum, integers weights, const int8_t *x)
{
    uint8_t numbers[sizeof weights];
    memcpy(numbers, &weights, sizeof weights);
    for (size_t lane = 0; lane < LANES; lane++)
        for (size_t i = 0; i < 4; i++)
            sum[lane] += numbers[lane * 4 + i] * x[i];
    return sum;
}
#endif

INLINE integers first_6(int32_t start)
{
    return (integers){0} + start;
}

INLINE integers add_6(integers sum, integers weights, const int8_t *x)
{
    return add_products(sum, weights, x);
}

INLINE integers first_4(int32_t start)
{
    return first_6(start);
}

INLINE integers add_4(integers sum, integers weights, const int8_t *x)
{
    return add_6(sum, weights, x);
}

INLINE integers total_4(integers sum, int32_t start)
{
    (void)start;
    return sum;
}

#if defined(ISA_DOTPROD)
INLINE integers first_8(int32_t start)
{
    (void)start;
    return (integers){0};
}

INLINE integers add_8(integers sum, integers weights, const int8_t *x)
{
    return add_products(sum, weights ^ (int32_t)0x80808080, x);
}
#else
INLINE integers first_8(int32_t start)
{
    return (integers){0} + start;
}

INLINE integers add_8(integers sum, integers weights, const int8_t *x)
{
    return add_products(sum, weights, x);
}
#endif

#endif
#endif

/* Vector operations on text, sixteen bytes at a time. */
#ifndef PROTO_BLOCK_H
#define PROTO_BLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest bit");

/* A window has 64 bytes: one for each bit of a word. */
enum { BLOCK_BYTES = 16, BLOCK_WINDOW = 64 };

/* Sixteen bytes, or the result of a comparison: 0xFF for true, 0x00 for false. */
typedef unsigned char block __attribute__((vector_size(BLOCK_BYTES)));

static inline block block_load(const void *bytes)
{
    block loaded;
    memcpy(&loaded, bytes, sizeof loaded);
    return loaded;
}

/* All ones in the last `count` bytes. */
static inline block block_last(size_t count)
{
    static const unsigned char edge[2 * BLOCK_BYTES] __attribute__((aligned(2 * BLOCK_BYTES))) = {
        [BLOCK_BYTES... 2 * BLOCK_BYTES - 1] = 0xFF,
    };
    return block_load(edge + count);
}

/* A mask of every byte's top bit; the first byte gives the lowest bit. */
static inline uint64_t block_bits(block bytes)
{
#ifdef __SSE2__
    return (unsigned)_mm_movemask_epi8((__m128i)bytes);
#else
    uint64_t ones = UINT64_C(0x0101010101010101), gather = UINT64_C(0x0102040810204080);
    uint64_t halves[2];
    memcpy(halves, &bytes, sizeof halves);
    return ((halves[0] >> 7 & ones) * gather >> 56) | ((halves[1] >> 7 & ones) * gather >> 56 << 8);
#endif
}

/* Converts sixteen digits, 0 to 9 each, to a number: first in fours, then in eights. */
static inline uint64_t block_decimal(block digits)
{
#ifdef __SSE2__
    __m128i even = _mm_and_si128((__m128i)digits, _mm_set1_epi16(0xFF));
    __m128i odd = _mm_srli_epi16((__m128i)digits, 8);
    __m128i four = _mm_add_epi32(_mm_madd_epi16(even, _mm_set1_epi32(10 << 16 | 1000)),
                                 _mm_madd_epi16(odd, _mm_set1_epi32(1 << 16 | 100)));
    four = _mm_packs_epi32(four, four);
    __m128i eight = _mm_madd_epi16(four, _mm_set1_epi32(1 << 16 | 10000));
    uint64_t both = (uint64_t)_mm_cvtsi128_si64(eight);
    return (both & UINT32_MAX) * 100000000 + (both >> 32);
#else
    typedef uint16_t pairs __attribute__((vector_size(BLOCK_BYTES)));
    typedef uint32_t fours __attribute__((vector_size(BLOCK_BYTES)));
    pairs even = ((pairs)digits & 0xFF) * (pairs){1000, 10, 1000, 10, 1000, 10, 1000, 10};
    pairs odd = ((pairs)digits >> 8) * (pairs){100, 1, 100, 1, 100, 1, 100, 1};
    fours four = (fours)(even + odd);
    four = (four + (four >> 16)) & 0xFFFF;
    uint64_t halves[2];
    memcpy(halves, &four, sizeof halves);
    uint64_t join = 1 + (UINT64_C(10000) << 32);
    return (halves[0] * join >> 32) * 100000000 + (halves[1] * join >> 32);
#endif
}

#endif

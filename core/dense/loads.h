/* Weights of every dtype as vectors of floats. Private to kernel.c and tile.c. */
#ifndef CORE_LOADS_H
#define CORE_LOADS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/dense/isa.h"

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef uint32_t bits __attribute__((vector_size(LANES * 4)));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from)
{
    vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

/* Loads half `v` of a panel's pairs. A BF16 number is the upper half of the same float. */
INLINE vec load_bf16(const uint16_t *from, unsigned v)
{
    bits pairs;
    memcpy(&pairs, from, sizeof pairs);
    return (vec)(v == 0 ? pairs << 16 : pairs & 0xFFFF0000);
}

INLINE vec load_f16(const uint16_t *from)
{
#ifdef LOAD_F16
    return LOAD_F16(from);
#else
    (void)from;
    return (vec){0};
#endif
}

INLINE vec load_i8(const int8_t *from)
{
#ifdef LOAD_I8
    return LOAD_I8(from);
#else
    vec value;
    for (size_t lane = 0; lane < LANES; lane++)
        value[lane] = from[lane];
    return value;
#endif
}

INLINE vec load_f8(const uint8_t *from)
{
#ifdef LOAD_F8
    return LOAD_F8(from);
#else
    (void)from;
    return (vec){0};
#endif
}

#endif

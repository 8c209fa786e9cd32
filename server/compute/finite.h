/* Whether what a model has computed can be an answer. */
#ifndef SERVER_FINITE_H
#define SERVER_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* None is NaN or infinite. Without a branch for each, so that many are looked at together: this
 * passes over every answer. */
static inline bool all_finite(const float *values, size_t count)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7FFFFFFFu;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x7F800000u;
}

#endif

/* The leading 128 bits of powers of ten, for exact conversion between decimal and binary. */
#ifndef PROTO_POWERS_OF_TEN_H
#define PROTO_POWERS_OF_TEN_H

#include <stdint.h>

/* All exponents found in real tensors, and all that the shortest digits of a float32 need
 * (-31..45). Numbers with larger exponents take the slow path. */
enum { POWER_OF_TEN_MIN = -64, POWER_OF_TEN_MAX = 64 };

/* 10^n = (high * 2^64 + low) * 2^(power_of_ten_exponent(n) - 127), high's top bit set; exact for
 * 0 <= n <= 55, truncated above, rounded up below. */
struct power_of_ten {
    uint64_t high, low;
};

extern const struct power_of_ten powers_of_ten[POWER_OF_TEN_MAX - POWER_OF_TEN_MIN + 1];

static inline const struct power_of_ten *power_of_ten(int n)
{
    return &powers_of_ten[n - POWER_OF_TEN_MIN];
}

/* floor(n * log2(10)): every compiler we use rounds down when it shifts a negative number. */
static inline int power_of_ten_exponent(int n)
{
    return (n * 1741647) >> 19;
}

#endif

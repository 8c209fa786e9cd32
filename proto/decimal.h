/* Decimal numbers on their way to doubles: what one number (number_scan.c) and lists of them
 * (number_list.c) have in common. Inline, because both spend most of their time here. */
#ifndef PROTO_DECIMAL_H
#define PROTO_DECIMAL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "proto/powers_of_ten.h"

enum {
    /* Decimal digits that always fit 64 bits. */
    MANTISSA_DIGITS = 19,
    /* A larger exponent means zero or infinity whatever the digits: no body has this many. */
    EXPONENT_LIMIT = 1000000000,
};

/* The powers of ten that a double holds exactly. */
static const double EXACT_POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Scans an optional exponent, such as "e+12", at `text`. */
static inline const char *scan_exponent(const char *text, const char *end, int64_t *exponent)
{
    *exponent = 0;
    if (text == end || (*text != 'e' && *text != 'E'))
        return text;
    text++;
    bool negative = text < end && *text == '-';
    if (text < end && (*text == '-' || *text == '+'))
        text++;
    if (text == end || !is_digit(*text))
        return NULL;
    for (; text < end && is_digit(*text); text++)
        if (*exponent < EXPONENT_LIMIT)
            *exponent = *exponent * 10 + (*text - '0');
    if (negative)
        *exponent = -*exponent;
    return text;
}

/* The nearest double to mantissa * 10^exponent; false if the product does not decide it. */
static inline bool nearest_by_product(uint64_t mantissa, int64_t exponent, double *value)
{
    if (mantissa == 0) {
        *value = 0;
        return true;
    }
    if (exponent < POWER_OF_TEN_MIN || exponent > POWER_OF_TEN_MAX)
        return false;
    const struct power_of_ten *power = power_of_ten((int)exponent);
    int shift = __builtin_clzll(mantissa);
    uint64_t normal = mantissa << shift;
    unsigned __int128 product = (unsigned __int128)normal * power->high;
    /* Rounding looks at the low 9 bits of the high word. If all are ones, the power's lower half
     * may carry into them. */
    if (((uint64_t)(product >> 64) & 0x1FF) == 0x1FF)
        product += (unsigned __int128)normal * power->low >> 64;
    uint64_t high = (uint64_t)(product >> 64), low = (uint64_t)product;
    if (low == UINT64_MAX && (exponent < -27 || exponent > 55))
        return false;

    int top = (int)(high >> 63);
    uint64_t rounded = high >> (top + 9); /* 54 bits: 53 and the one that rounds */
    int binary_exponent = power_of_ten_exponent((int)exponent) + top - shift + 1023 + 63;
    /* Exactly halfway can only happen for these exponents; then round to even. */
    bool halfway = low <= 1 && exponent >= -4 && exponent <= 23 && (rounded & 3) == 1 &&
                   rounded << (top + 9) == high;
    rounded = halfway ? rounded >> 1 : (rounded + 1) >> 1;
    /* Adding, not or-ing, lets a carry out of the 53 bits increment the exponent field. */
    uint64_t bits = ((uint64_t)binary_exponent << 52) + (rounded - (UINT64_C(1) << 52));
    memcpy(value, &bits, sizeof bits);
    return true;
}

#endif

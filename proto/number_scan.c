/* Decimal text -> the nearest double.
 *
 * Most numbers are a small integer over a small power of ten: both are doubles, and one division
 * rounds their quotient once (Clinger). Any other with at most 19 significant digits and an everyday
 * exponent is an integer times a power of ten, and the nearest double falls out of one or two
 * 64x64-bit products (Lemire, "Number parsing at a gigabyte per second"). Everything else goes to
 * strtod in the C locale, on a copy of bounded length. */
#include "number.h"
#include "c_locale.h"
#include "powers_of_ten.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Decimal digits that always fit 64 bits. */
    MANTISSA_DIGITS = 19,
    /* A double's halfway points have at most 767 significant digits: past them only "is anything
     * left" matters, so a number a megabyte long costs the slow road no more than this. */
    SLOW_DIGITS = 800,
    /* Any exponent beyond is zero or infinite whatever the digits, of which a body holds fewer. */
    EXPONENT_LIMIT = 1000000000,
};

/* What the grammar's pass over a number learns: value = mantissa * 10^exponent, plus something less
 * than 10^exponent when digits were dropped. */
struct decimal {
    const char *digits, *digits_end; /* integer and fraction, the point included */
    uint64_t mantissa;
    int64_t exponent;
    int64_t written_exponent; /* after the 'e' */
    bool negative;
    bool dropped_digits;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *scan_digits(const char *text, const char *end, uint64_t *mantissa)
{
    while (text < end && is_digit(*text))
        *mantissa = *mantissa * 10 + (uint64_t)(*text++ - '0');
    return text;
}

/* The mantissa wrapped around: take the first 19 significant digits again, with care. */
static void keep_leading_digits(struct decimal *decimal)
{
    int kept = 0;
    bool fraction = false;
    decimal->mantissa = 0;
    decimal->exponent = decimal->written_exponent;
    for (const char *c = decimal->digits; c < decimal->digits_end; c++) {
        if (*c == '.') {
            fraction = true;
            continue;
        }
        if (kept == MANTISSA_DIGITS) {
            decimal->dropped_digits |= *c != '0';
            decimal->exponent += !fraction;
            continue;
        }
        decimal->mantissa = decimal->mantissa * 10 + (uint64_t)(*c - '0');
        decimal->exponent -= fraction;
        kept += decimal->mantissa != 0;
    }
}

/* Scans "e+12" at `text`, where there may be none. */
static const char *scan_exponent(const char *text, const char *end, int64_t *exponent)
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

/* RFC 8259: [ "-" ] ( "0" | 1-9 digits ) [ "." digits ] [ exponent ] */
static const char *scan_decimal(const char *text, const char *end, struct decimal *decimal)
{
    decimal->negative = text < end && *text == '-';
    text += decimal->negative;
    decimal->digits = text;
    decimal->mantissa = 0;
    decimal->dropped_digits = false;
    if (text == end || !is_digit(*text))
        return NULL;
    const char *point = *text == '0' ? text + 1 : scan_digits(text, end, &decimal->mantissa);
    if (point < end && is_digit(*point))
        return NULL;
    const char *after = point;
    ptrdiff_t fraction_digits = 0;
    if (point < end && *point == '.') {
        after = scan_digits(point + 1, end, &decimal->mantissa);
        fraction_digits = after - (point + 1);
        if (fraction_digits == 0)
            return NULL;
    }
    decimal->digits_end = after;
    after = scan_exponent(after, end, &decimal->written_exponent);
    decimal->exponent = decimal->written_exponent - fraction_digits;
    if (decimal->digits_end - decimal->digits - (fraction_digits > 0) > MANTISSA_DIGITS)
        keep_leading_digits(decimal);
    return after;
}

/* mantissa / 10^-exponent, where both are doubles without rounding. */
static bool exact_quotient(uint64_t mantissa, int64_t exponent, double *value)
{
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (exponent > 0 || exponent < -22 || mantissa > UINT64_C(1) << 53)
        return false;
    *value = (double)mantissa / power[-exponent];
    return true;
}

/* The nearest double to mantissa * 10^exponent; false when the product cannot tell. */
static bool nearest_double(uint64_t mantissa, int64_t exponent, double *value)
{
    if (exact_quotient(mantissa, exponent, value))
        return true;
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
    /* The low 9 bits of the high word are what rounding looks at; all ones means that the power's
     * lower half may carry into them. */
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
    /* A carry out of the 53 bits is what adding to the exponent field does by itself. */
    uint64_t bits = ((uint64_t)binary_exponent << 52) + (rounded - (UINT64_C(1) << 52));
    memcpy(value, &bits, sizeof bits);
    return true;
}

/* Rewrites the number as up to SLOW_DIGITS digits and an exponent: the same value, or with a 1 in
 * place of a longer tail one on the same side of every halfway point. */
static double slow_double(const struct decimal *decimal)
{
    char text[SLOW_DIGITS + 32];
    size_t kept = 0;
    int64_t exponent = decimal->written_exponent;
    bool fraction = false, tail = false;
    for (const char *c = decimal->digits; c < decimal->digits_end; c++) {
        if (*c == '.') {
            fraction = true;
        } else if (kept < SLOW_DIGITS) {
            text[kept] = *c;
            kept += kept > 0 || *c != '0';
            exponent -= fraction;
        } else {
            tail |= *c != '0';
            exponent += !fraction;
        }
    }
    snprintf(text + kept, sizeof text - kept, "%ce%lld", tail ? '1' : '0', (long long)exponent - 1);
    locale_t previous = uselocale(c_locale());
    double value = strtod(text, NULL);
    uselocale(previous);
    return value;
}

const char *number_scan(const char *text, const char *end, double *value)
{
    struct decimal decimal;
    const char *after = scan_decimal(text, end, &decimal);
    if (!after)
        return NULL;
    double magnitude, next;
    bool known = nearest_double(decimal.mantissa, decimal.exponent, &magnitude);
    /* The digits beyond the mantissa put the number between it and the next: often that says
     * enough. */
    if (known && decimal.dropped_digits)
        known = nearest_double(decimal.mantissa + 1, decimal.exponent, &next) && next == magnitude;
    if (!known)
        magnitude = slow_double(&decimal);
    if (isinf(magnitude))
        return NULL;
    *value = decimal.negative ? -magnitude : magnitude;
    return after;
}

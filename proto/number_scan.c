/* Decimal text -> the nearest double.
 *
 * Most numbers are a small integer over a small power of ten: both are doubles, and one division
 * rounds their quotient once (Clinger). Any other with at most 19 significant digits and a common
 * exponent is an integer times a power of ten, and one or two 64x64-bit products give the nearest
 * double (Lemire, "Number parsing at a gigabyte per second"). Everything else goes to strtod in the
 * C locale, on a copy of bounded length.
 *
 * This scans one number, byte by byte. Tensors are lists of numbers, which number_list.c reads
 * faster as long as they are plain. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/c_locale.h"
#include "proto/decimal.h"
#include "proto/number.h"

enum {
    /* The halfway point between two doubles has at most 767 significant digits. Beyond those it
     * only matters whether any digit is not zero, so strtod never sees more than this, even of a
     * number a megabyte long. */
    SLOW_DIGITS = 800,
};

/* The parsed number: value = mantissa * 10^exponent, plus less than 10^exponent if digits were
 * dropped. */
struct decimal {
    const char *digits, *digits_end; /* integer and fraction, the point included */
    uint64_t mantissa;
    int64_t exponent;
    int64_t written_exponent; /* after the 'e' */
    bool negative;
    bool dropped_digits;
};

static const char *scan_digits(const char *text, const char *end, uint64_t *mantissa)
{
    while (text < end && is_digit(*text))
        *mantissa = *mantissa * 10 + (uint64_t)(*text++ - '0');
    return text;
}

/* The mantissa overflowed: computes it again from the first 19 significant digits. */
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

/* mantissa / 10^-exponent, if doubles hold both exactly. */
static bool exact_quotient(uint64_t mantissa, int64_t exponent, double *value)
{
    if (exponent > 0 || exponent < -22 || mantissa > UINT64_C(1) << 53)
        return false;
    *value = (double)(int64_t)mantissa / EXACT_POWERS[-exponent];
    return true;
}

static bool nearest_double(uint64_t mantissa, int64_t exponent, double *value)
{
    return exact_quotient(mantissa, exponent, value) ||
           nearest_by_product(mantissa, exponent, value);
}

/* Rewrites the number as up to SLOW_DIGITS digits and an exponent. The value is the same; if digits
 * are dropped, a trailing 1 keeps it on the same side of every halfway point. */
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
    /* With digits dropped the number is between this mantissa and the next. Often both round to the
     * same double. */
    if (known && decimal.dropped_digits)
        known = nearest_double(decimal.mantissa + 1, decimal.exponent, &next) && next == magnitude;
    if (!known)
        magnitude = slow_double(&decimal);
    if (isinf(magnitude))
        return NULL;
    *value = decimal.negative ? -magnitude : magnitude;
    return after;
}

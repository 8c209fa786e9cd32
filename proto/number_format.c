/* float -> the shortest decimal text that reads back as the same float.
 *
 * Schubfach (Giulietti, "The Schubfach way to render doubles"): the float and the halfway points to
 * its neighbours are scaled by one power of ten, rounded so that comparisons stay exact. Four
 * integer comparisons then find the shortest decimal between the halfway points. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/c_locale.h"
#include "proto/number.h"
#include "proto/powers_of_ten.h"

/* digits * 10^exponent */
struct decimal {
    uint32_t digits;
    int exponent;
};

/* floor(log10(2^exponent)), or of 3/4 of it if `narrow`: the width of the interval that reads back
 * as one float. It is narrower at a power of two, whose lower neighbour is nearer. */
static int interval_exponent(int exponent, bool narrow)
{
    return (exponent * 1262611 - (narrow ? 524031 : 0)) >> 22;
}

/* factor * scaled / 2^64, rounded to odd: the last bit is set if anything was cut off, so that
 * comparisons stay exact. */
static uint32_t scale_to_odd(uint64_t factor, uint32_t scaled)
{
    unsigned __int128 product = (unsigned __int128)factor * scaled;
    uint32_t whole = (uint32_t)(product >> 64);
    uint32_t rest = (uint32_t)(product >> 32);
    return whole | (rest > 1);
}

/* The shortest decimal that reads back as significand * 2^exponent; among equally short ones, the
 * nearest. Trailing zeros may remain. */
static struct decimal shortest(uint32_t significand, int exponent, bool narrow)
{
    int k = interval_exponent(exponent, narrow);
    int shift = exponent + power_of_ten_exponent(-k) + 1;
    const struct power_of_ten *power = power_of_ten(-k);
    uint64_t factor = power->high + (power->low != 0); /* rounded up to 64 bits */

    /* Four times the float and its halfway points, all scaled by 10^-k. Text exactly on a halfway
     * point reads back as this float only when the significand is even. */
    uint32_t value = scale_to_odd(factor, (4 * significand) << shift);
    uint32_t lower = scale_to_odd(factor, (4 * significand - 2 + narrow) << shift);
    uint32_t upper = scale_to_odd(factor, (4 * significand + 2) << shift);
    lower += significand & 1;
    upper -= significand & 1;

    uint32_t digits = value / 4;
    if (digits >= 10) {
        uint32_t tens = digits / 10;
        bool down = lower <= 40 * tens, up = 40 * tens + 40 <= upper;
        if (down != up)
            return (struct decimal){tens + up, k + 1};
    }
    bool down = lower <= 4 * digits, up = 4 * digits + 4 <= upper;
    if (down != up)
        return (struct decimal){digits + up, k};
    uint32_t middle = 4 * digits + 2;
    bool round_up = value > middle || (value == middle && (digits & 1));
    return (struct decimal){digits + round_up, k};
}

static struct decimal decimal_from_bits(uint32_t bits)
{
    uint32_t fraction = bits & 0x7FFFFF;
    int exponent_field = (int)(bits >> 23) & 0xFF;
    if (exponent_field == 0)
        return shortest(fraction, 1 - 150, false);
    uint32_t significand = fraction | 0x800000;
    int exponent = exponent_field - 150;
    /* An integer below 2^24 is its own shortest text. */
    if (exponent <= 0 && exponent > -24 && (significand & ((1u << -exponent) - 1)) == 0)
        return (struct decimal){significand >> -exponent, 0};
    return shortest(significand, exponent, fraction == 0 && exponent_field > 1);
}

/* A decimal's digits are followed by zeros, so that the code below can copy a constant number of
 * bytes: that compiles to moves, a variable number to a call. */
enum { DIGITS = 10, PADDED_DIGITS = 40, COPIED_DIGITS = 16 };

/* Writes digits right-aligned at the end of text[DIGITS]; returns where they start. */
static size_t write_digits(char text[PADDED_DIGITS], uint32_t digits)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    memset(text + DIGITS, '0', PADDED_DIGITS - DIGITS);
    size_t start = DIGITS;
    for (; digits >= 10; digits /= 100)
        memcpy(text + (start -= 2), pairs + digits % 100 * 2, 2);
    if (digits > 0)
        text[--start] = (char)('0' + digits);
    return start;
}

/* 1.5e-07 */
static size_t write_scientific(char *text, const char *digits, size_t count, int exponent)
{
    text[0] = digits[0];
    text[1] = '.';
    memcpy(text + 2, digits + 1, COPIED_DIGITS);
    char *to = text + (count > 1 ? count + 1 : 1);
    int magnitude = abs(exponent); /* at most 45 */
    to[0] = 'e';
    to[1] = exponent < 0 ? '-' : '+';
    to[2] = (char)('0' + magnitude / 10);
    to[3] = (char)('0' + magnitude % 10);
    return (size_t)(to + 4 - text);
}

/* 0.0015: at most three zeros */
static size_t write_below_one(char *text, const char *digits, size_t count, size_t zeros)
{
    memcpy(text, "0.000", 5);
    memcpy(text + 2 + zeros, digits, COPIED_DIGITS);
    return 2 + zeros + count;
}

/* 12.5, 1200.0: `whole` digits before the point, at most 16 */
static size_t write_fixed(char *text, const char *digits, size_t count, size_t whole)
{
    memcpy(text, digits, COPIED_DIGITS);
    text[whole] = '.';
    memcpy(text + whole + 1, digits + whole, DIGITS);
    return whole + 1 + (count > whole ? count - whole : 1);
}

size_t number_format(char *text, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7F800000) == 0x7F800000) {
        memcpy(text, "null", 4);
        return 4;
    }
    size_t sign = bits >> 31;
    *text = '-'; /* overwritten if not negative */
    text += sign;
    if (value == 0) {
        memcpy(text, "0.0", 3);
        return sign + 3;
    }
    struct decimal decimal = decimal_from_bits(bits);
    while (decimal.digits % 10 == 0) {
        decimal.digits /= 10;
        decimal.exponent++;
    }
    char digits[PADDED_DIGITS];
    size_t start = write_digits(digits, decimal.digits);
    size_t count = DIGITS - start;
    int whole = (int)count + decimal.exponent; /* digits before the point */
    /* Python's rule for when to use an exponent. */
    if (whole <= -4 || whole > 16)
        return sign + write_scientific(text, digits + start, count, whole - 1);
    if (whole <= 0)
        return sign + write_below_one(text, digits + start, count, (size_t)-whole);
    return sign + write_fixed(text, digits + start, count, (size_t)whole);
}

/* printf is fast enough for statistics, but must use the C locale. */
size_t number_format_double(char *text, double value)
{
    if (!isfinite(value)) {
        memcpy(text, "null", 4);
        return 4;
    }
    locale_t previous = uselocale(c_locale());
    int bytes = 0;
    for (int precision = 15; precision <= 17; precision++) {
        bytes = snprintf(text, NUMBER_FORMAT_BYTES, "%.*g", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    uselocale(previous);
    return (size_t)bytes;
}

/* Decimal text -> the nearest double.
 *
 * Most numbers are a small integer over a small power of ten: both are doubles, and one division
 * rounds their quotient once (Clinger). Any other with at most 19 significant digits and an everyday
 * exponent is an integer times a power of ten, and the nearest double falls out of one or two
 * 64x64-bit products (Lemire, "Number parsing at a gigabyte per second"). Everything else goes to
 * strtod in the C locale, on a copy of bounded length.
 *
 * That is one number at a time, a byte at a time. Lists, which tensors are, go 64 bytes at a time as
 * long as their numbers are plain: see the second half. */
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
    *value =
        (double)(int64_t)mantissa / power[-exponent]; /* the signed conversion is the cheap one */
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

/* ---- lists ----
 *
 * Nobody can predict how long the next number is, and a wrong guess costs as much as converting it.
 * So the text is looked at in windows of 64 bytes, as bits: where tokens stop, and where in them are
 * points. A number of up to 16 digits then takes the same steps whatever its length: the 16 bytes
 * before its stop, with the point taken out and what is before it blanked, are its digits.
 *
 * A window is read whole, and so is what is before and behind it; near either end of the text it is
 * a copy with zeros around it. Whatever is not so plain is left to number_scan. */

enum {
    WINDOW = 64,
    BLOCK = 16,
    LOOK_BACK = 2 * BLOCK + 1, /* from a number's stop: its digits and the point among them */
    LOOK_AHEAD = 8,            /* from the window's last byte */
    /* As a head before 16 digits this still fits 64 bits. */
    HEAD_LIMIT = 1000,
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first digit is the lowest byte");

typedef unsigned char block __attribute__((vector_size(BLOCK)));

struct window {
    const char *text;
    /* Of the bytes from the next number on. '-' to '9' are no stops: the '-' of an exponent and the
     * '/' among them are found out when the digits are looked at. */
    uint64_t stops, points;
};

static inline block load_block(const char *bytes)
{
    block loaded;
    memcpy(&loaded, bytes, sizeof loaded);
    return loaded;
}

/* The top bit of every byte. */
static inline uint64_t top_bits(block bytes)
{
#ifdef __SSE2__
    return (unsigned)__builtin_ia32_pmovmskb128((char __attribute__((vector_size(BLOCK))))bytes);
#else
    const uint64_t ones = UINT64_C(0x0101010101010101), gather = UINT64_C(0x0102040810204080);
    uint64_t halves[2];
    memcpy(halves, &bytes, sizeof halves);
    return ((halves[0] >> 7 & ones) * gather >> 56) | ((halves[1] >> 7 & ones) * gather >> 56 << 8);
#endif
}

static inline struct window open_window(const char *text)
{
    uint64_t inside = 0, points = 0;
    for (int i = 0; i < WINDOW / BLOCK; i++) {
        block bytes = load_block(text + i * BLOCK);
        inside |= top_bits((block)(bytes - '-' <= '9' - '-')) << i * BLOCK;
        points |= top_bits((block)(bytes == '.')) << i * BLOCK;
    }
    return (struct window){text, ~inside, points};
}

/* All ones in the last `count` bytes, which are the highest. */
static inline block last_bytes(size_t count)
{
    static const char edge[2 * BLOCK] = {[BLOCK] = -1, -1, -1, -1, -1, -1, -1, -1,
                                         -1,           -1, -1, -1, -1, -1, -1, -1};
    return load_block(edge + count);
}

/* The last `count` digits before `stop`, of which the last `fraction` are behind a point. Without a
 * point all of them are: `fraction` is BLOCK. */
static inline block digits_before(const char *stop, size_t count, size_t fraction)
{
    block behind = last_bytes(fraction);
    block digits = (load_block(stop - BLOCK) & behind) | (load_block(stop - BLOCK - 1) & ~behind);
    return (digits - '0') & last_bytes(count);
}

/* Only '-', '.' and '/' can be among a token's digits, and they are less than '0'. */
static inline bool all_digits(block digits)
{
    return top_bits(digits) == 0;
}

/* Two digits, then four, then eight at a time. */
static inline uint64_t value_of(block digits)
{
    typedef uint16_t twos __attribute__((vector_size(BLOCK)));
    typedef uint32_t fours __attribute__((vector_size(BLOCK)));
    twos two = ((twos)digits * 10 + ((twos)digits >> 8)) & 0xFF;
    fours four = (fours)(two * (twos){100, 1, 100, 1, 100, 1, 100, 1});
    four = (four + (four >> 16)) & 0xFFFF;
    uint64_t halves[2];
    memcpy(halves, &four, sizeof halves);
    const uint64_t pair = 1 + (UINT64_C(10000) << 32);
    return (halves[0] * pair >> 32) * 100000000 + (halves[1] * pair >> 32);
}

/* The same of the `count` digits from `text` on, 1 to 8 of them. False when not all are digits. */
static inline bool short_integer(const char *text, size_t count, uint64_t *value)
{
    uint64_t digits;
    memcpy(&digits, text, sizeof digits);
    digits = (digits ^ UINT64_C(0x3030303030303030)) << (64 - 8 * count);
    bool valid = (digits & UINT64_C(0xF0F0F0F0F0F0F0F0)) == 0;
    digits = digits * 10 + (digits >> 8);
    const uint64_t high = 100 + (UINT64_C(1000000) << 32), low = 1 + (UINT64_C(10000) << 32);
    const uint64_t twos = UINT64_C(0x000000FF000000FF);
    *value = ((digits & twos) * high + ((digits >> 16) & twos) * low) >> 32;
    return valid;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The same of up to 32 digits; false also when they are too much for 64 bits. */
static bool long_mantissa(const char *stop, size_t count, size_t fraction, uint64_t *mantissa)
{
    size_t low_count = count < BLOCK ? count : BLOCK;
    size_t low_fraction = fraction - 1 < BLOCK ? fraction : BLOCK;
    block low = digits_before(stop, low_count, low_fraction);
    /* Left of the low block; one byte further when that one has the point in it or before it. */
    size_t high_fraction = fraction == 0 ? BLOCK : fraction > BLOCK ? fraction - BLOCK : 0;
    block high = digits_before(stop - BLOCK, count - low_count, high_fraction);
    uint64_t head = value_of(high);
    *mantissa = head * UINT64_C(10000000000000000) + value_of(low);
    return all_digits(low | high) & (head < HEAD_LIMIT);
}

/* Divided by these, a mantissa gets its point and its sign. */
static const double signed_powers[2][BLOCK] = {
    {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15},
    {-1e0, -1e1, -1e2, -1e3, -1e4, -1e5, -1e6, -1e7, -1e8, -1e9, -1e10, -1e11, -1e12, -1e13, -1e14,
     -1e15},
};

/* With a zero only when that is the only digit before the point. */
static inline bool may_begin(char first, size_t integers)
{
    return first >= '0' + (integers != 1);
}

/* An integer of up to 8 digits. */
static inline bool take_integer(const char *first, size_t count, bool negative, double *value)
{
    uint64_t integer;
    if (count - 1 >= 8 || !may_begin(*first, count) || !short_integer(first, count, &integer))
        return false;
    *value = (double)(int64_t)integer * signed_powers[negative][0];
    return true;
}

/* A decimal of up to 15 digits, which a double holds, as it does the power of ten. */
static inline bool take_decimal(const char *first, size_t integers, size_t fraction, bool negative,
                                double *value)
{
    size_t digits = integers + fraction;
    if (((integers - 1) | (fraction - 1) | (BLOCK - 1 - digits)) >= BLOCK ||
        !may_begin(*first, integers))
        return false;
    block bytes = digits_before(first + digits + 1, digits, fraction);
    if (!all_digits(bytes))
        return false;
    *value = (double)(int64_t)value_of(bytes) / signed_powers[negative][fraction];
    return true;
}

/* Takes "e-12" behind a mantissa. */
static bool take_exponent(const char *text, size_t *stop, int64_t *exponent)
{
    const char *after = scan_exponent(text + *stop, text + WINDOW + LOOK_AHEAD, exponent);
    if (!after || after - text >= WINDOW)
        return false;
    *stop = (size_t)(after - text);
    return true;
}

static inline bool is_exponent(char c)
{
    return (c | 0x20) == 'e';
}

/* A number of up to 32 digits, with or without an exponent; a point that ends it is taken for a digit,
 * and refused. Returns the offset behind it; 0 when it is not one, or when the window does not hold it
 * whole. */
static __attribute__((noinline)) size_t take_long(const char *text, size_t first, size_t point,
                                                  size_t stop, bool negative, double *value)
{
    size_t integers = point - first, fraction = point < stop ? stop - point - 1 : 0;
    int64_t exponent = 0;
    uint64_t mantissa;
    if (integers == 0 || integers + fraction > 2 * BLOCK || !may_begin(text[first], integers) ||
        !long_mantissa(text + stop, integers + fraction, fraction, &mantissa))
        return 0;
    if (is_exponent(text[stop]) && !take_exponent(text, &stop, &exponent))
        return 0;
    if (!nearest_double(mantissa, exponent - (int64_t)fraction, value))
        return 0;
    *value *= signed_powers[negative][0];
    return stop;
}

/* Takes the number at `*at`, which moves behind it. False when the window does not hold it whole, or
 * when it is not plain: nobody may take another one then. */
static inline bool take_number(struct window *window, size_t *at, double *value)
{
    const char *text = window->text;
    size_t stop = (size_t)__builtin_ctzll(window->stops), point = stop;
    bool negative = text[*at] == '-';
    size_t first = *at + negative;
    /* The points before it are gone; a second one of its own would be taken for a digit, and refused. */
    uint64_t points = window->points & (window->stops ^ (window->stops - 1));
    bool decimal = points != 0, taken;
    if (decimal) {
        point = (size_t)__builtin_ctzll(points);
        window->points &= window->points - 1;
    }
    if (text[stop] != ',' && is_exponent(text[stop]))
        taken = false;
    else if (decimal)
        taken = take_decimal(text + first, point - first, stop - point - 1, negative, value);
    else
        taken = take_integer(text + first, stop - first, negative, value);
    if (!taken) {
        stop = take_long(text, first, point, stop, negative, value);
        if (stop == 0)
            return false;
        window->stops &= -(UINT64_C(1) << stop);
    }
    *at = stop;
    return true;
}

/* Takes numbers of the window that begins at `text` with one. Returns how many, and in `*behind` how
 * many bytes up to the end of the last. */
static size_t scan_window(const char *text, double *values, size_t count, size_t *behind)
{
    struct window window = open_window(text);
    size_t taken = 0, at = 0;
    while (window.stops && take_number(&window, &at, &values[taken])) {
        taken++;
        *behind = at;
        if (text[at] != ',' || taken == count)
            break;
        window.stops &= window.stops - 1;
        at++;
        while (window.stops && is_space(text[at])) {
            window.stops &= window.stops - 1;
            at++;
        }
    }
    return taken;
}

/* The same for any text [c, end), of which everything from `begin` on may be read. */
static size_t scan_any_window(const char *begin, const char *c, const char *end, double *values,
                              size_t count, size_t *behind)
{
    if (c - begin >= LOOK_BACK && end - c >= WINDOW + LOOK_AHEAD)
        return scan_window(c, values, count, behind);
    char copy[LOOK_BACK + WINDOW + LOOK_AHEAD] = {0};
    memcpy(copy + LOOK_BACK, c, end - c < WINDOW ? (size_t)(end - c) : WINDOW);
    return scan_window(copy + LOOK_BACK, values, count, behind);
}

/* Over a comma and the white space around it; NULL where there is none. */
static const char *skip_comma(const char *text, const char *end)
{
    while (text < end && is_space(*text))
        text++;
    if (text == end || *text != ',')
        return NULL;
    for (text++; text < end && is_space(*text); text++)
        ;
    return text;
}

size_t number_scan_list(const char **text, const char *end, double *values, size_t count)
{
    const char *begin = *text;
    size_t read = 0;
    for (const char *c = begin; c && read < count; c = skip_comma(*text, end)) {
        size_t behind, taken = scan_any_window(begin, c, end, values + read, count - read, &behind);
        const char *after = taken > 0 ? c + behind : number_scan(c, end, values + read);
        if (!after)
            break;
        read += taken > 0 ? taken : 1;
        *text = after;
    }
    return read;
}

/* Decimal text -> the nearest double.
 *
 * Most numbers are a small integer over a small power of ten: both are doubles, and one division
 * rounds their quotient once (Clinger). Any other with at most 19 significant digits and a common
 * exponent is an integer times a power of ten, and one or two 64x64-bit products give the nearest
 * double (Lemire, "Number parsing at a gigabyte per second"). Everything else goes to strtod in the
 * C locale, on a copy of bounded length.
 *
 * The first half of this file scans one number, byte by byte. Tensors are lists of numbers, and
 * those take the faster path in the second half as long as they are plain. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "proto/block.h"
#include "proto/c_locale.h"
#include "proto/number.h"
#include "proto/powers_of_ten.h"

enum {
    /* Decimal digits that always fit 64 bits. */
    MANTISSA_DIGITS = 19,
    /* The halfway point between two doubles has at most 767 significant digits. Beyond those it
     * only matters whether any digit is not zero, so strtod never sees more than this, even of a
     * number a megabyte long. */
    SLOW_DIGITS = 800,
    /* A larger exponent means zero or infinity whatever the digits: no body has this many. */
    EXPONENT_LIMIT = 1000000000,
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

/* Scans an optional exponent, such as "e+12", at `text`. */
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

/* The powers of ten that a double holds exactly. */
static const double exact_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                      1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* mantissa / 10^-exponent, if doubles hold both exactly. */
static bool exact_quotient(uint64_t mantissa, int64_t exponent, double *value)
{
    if (exponent > 0 || exponent < -22 || mantissa > UINT64_C(1) << 53)
        return false;
    *value = (double)(int64_t)mantissa / exact_powers[-exponent];
    return true;
}

/* The nearest double to mantissa * 10^exponent; false if the product does not decide it. */
static bool nearest_by_product(uint64_t mantissa, int64_t exponent, double *value)
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

/* ---- lists ----
 *
 * The processor cannot predict where the next number ends, and a misprediction costs as much as a
 * conversion. So a list is read in windows of 64 bytes: each window is searched for all its
 * separators at once, and then every number takes the same steps, whatever its length and wherever
 * its point. Its digits are in the sixteen bytes before its separator: bytes before the number are
 * blanked, and digits before the point are moved over it. A number with more digits or with an
 * exponent takes a few more steps. Anything unusual, or too near to either end of the text, is left
 * to number_scan(). */

/* How many bytes before a number the vector loads may touch. */
enum { LOOK_BACK = BLOCK_BYTES };

/* The state of a scan through the windows of a list. */
struct list {
    const char *at; /* after the last separator taken */
    const char *window, *next_window, *last_window;
    uint64_t separators; /* bits of the window not taken yet: the list's commas and its end */
    bool closed;         /* its end has been seen */
};

static const char *skip_space(const char *text, const char *end)
{
    while (text < end && text_is_space(*text))
        text++;
    return text;
}

static inline void find_separators(struct list *list)
{
    block bytes[BLOCK_WINDOW / BLOCK_BYTES], closing = {0};
    uint64_t commas = 0, ends = 0;
    for (int i = 0; i < BLOCK_WINDOW / BLOCK_BYTES; i++) {
        bytes[i] = block_load(list->window + i * BLOCK_BYTES);
        commas |= block_bits((block)(bytes[i] == ',')) << i * BLOCK_BYTES;
        closing |= (block)(bytes[i] == ']');
    }
    list->separators = commas;
    if (block_bits(closing) == 0)
        return;
    for (int i = 0; i < BLOCK_WINDOW / BLOCK_BYTES; i++)
        ends |= block_bits((block)(bytes[i] == ']')) << i * BLOCK_BYTES;
    list->separators = (commas | ends) & (ends ^ (ends - 1));
    list->closed = true;
}

/* Moves on to a window that has separators. The last window may overlap the one before it. */
static inline bool next_window(struct list *list)
{
    while (list->separators == 0) {
        ptrdiff_t overlap = list->next_window - list->last_window;
        if (list->closed || overlap >= BLOCK_WINDOW)
            return false;
        list->window = overlap > 0 ? list->last_window : list->next_window;
        list->next_window = list->window + BLOCK_WINDOW;
        find_separators(list);
        if (overlap > 0)
            list->separators &= UINT64_MAX << overlap;
    }
    return true;
}

/* Factors that give a magnitude its sign, also if it is zero. */
static const double signs[2] = {1, -1};

/* All ones in the last `count` bytes of four. */
static const uint32_t last_of_four[] = {0, 0xFF000000, 0xFFFF0000, 0xFFFFFF00, 0xFFFFFFFF};

static inline uint32_t load_four(const char *text)
{
    uint32_t four;
    memcpy(&four, text, sizeof four);
    return four;
}

/* Whether all bytes are at most 9. A sum that carries into the next byte comes from a byte that is
 * not. */
static inline bool word_is_digits(uint64_t digits)
{
    return (((digits + UINT64_C(0x7676767676767676)) | digits) & UINT64_C(0x8080808080808080)) == 0;
}

/* The values of the lower and upper four digits, in 32 bits each. */
static inline uint64_t values_of_fours(uint64_t digits)
{
    digits = (digits * (10 * 256 + 1)) >> 8 & UINT64_C(0x00FF00FF00FF00FF);
    return (digits * (100 * 65536 + 1)) >> 16 & UINT64_C(0x0000FFFF0000FFFF);
}

/* An integer of up to four digits. */
static inline bool take_short(const char *text, const char *end, double *value)
{
    /* By number of digits: the least valid value. An empty number and a leading zero are
     * invalid. */
    static const uint32_t least[] = {UINT32_MAX, 0, 10, 100, 1000};
    size_t length = (size_t)(end - text);
    if (length > 4)
        return false;
    uint32_t digits = (load_four(end - 4) ^ 0x30303030) & last_of_four[length];
    if (!word_is_digits(digits))
        return false;
    uint32_t integer = (uint32_t)values_of_fours(digits);
    *value = (int32_t)integer;
    return integer >= least[length];
}

/* A number starts with a digit, and with 0 only if no digit follows. */
static inline bool may_begin(const char *text)
{
    /* By first character: the bound on the second character's distance from ':', which follows '9',
     * modulo 256. 256 - 10 excludes digits; 256 excludes nothing; 0, everything. */
    static const uint16_t second[256] = {['0'] = 256 - 10, ['1' ... '9'] = 256};
    return (unsigned char)(text[1] - '9' - 1) < second[(unsigned char)text[0]];
}

static inline bool block_is_digits(block digits)
{
    return block_bits((digits + (128 - 10)) | digits) == 0;
}

/* The digits among the `length` (1 to 16) characters before `end`, padded with zeros in front.
 * `*fraction` receives how many follow the point; BLOCK_BYTES without a point. A point at the end,
 * a second point and other characters that are not digits remain: the caller rejects them. */
static inline block digits_before(const char *end, size_t length, size_t *fraction)
{
    block digits = (block_load(end - BLOCK_BYTES) - '0') & block_last(length);
    block moved = __builtin_shufflevector((block){0}, digits, 15, 16, 17, 18, 19, 20, 21, 22, 23,
                                          24, 25, 26, 27, 28, 29, 30);
    uint64_t points = block_bits((block)(moved == (unsigned char)('.' - '0')));
    *fraction = (size_t)__builtin_clz((unsigned)points | 1) - 15;
    return moved ^ ((moved ^ digits) & block_last(*fraction));
}

/* Takes a number without exponent, of up to sixteen characters after its sign: an integer, or up to
 * fifteen digits divided by a power of ten, where doubles hold both exactly. */
static inline bool take_plain(const char *text, const char *end, double *value)
{
    size_t negative = *text == '-';
    text += negative;
    size_t length = (size_t)(end - text), fraction;
    if (length > BLOCK_BYTES || !may_begin(text))
        return false;
    block digits = digits_before(end, length, &fraction);
    if (!block_is_digits(digits))
        return false;
    *value = (double)(int64_t)block_decimal(digits) / exact_powers[fraction % BLOCK_BYTES] *
             signs[negative];
    return true;
}

/* Reads the 17 to 20 characters in [text, end), of which up to four precede the point, as an
 * integer. `*fraction` receives how many digits follow the point. The last sixteen of those are one
 * block; the digits before that block and the digits before the point are loaded as four bytes
 * each. */
static bool long_mantissa(const char *text, const char *end, uint64_t *mantissa, size_t *fraction)
{
    uint64_t points = block_bits((block)(block_load(text) == '.')) | 1 << BLOCK_BYTES;
    size_t length = (size_t)(end - text), before = (size_t)__builtin_ctzll(points);
    if (length > MANTISSA_DIGITS + 1 || before > 4)
        return false;
    *fraction = length - before - 1;
    size_t low_count = *fraction < BLOCK_BYTES ? *fraction : BLOCK_BYTES;
    block low = (block_load(end - BLOCK_BYTES) - '0') & block_last(low_count);
    uint64_t high = (uint64_t)load_four(end - BLOCK_BYTES - 4) << 32 | load_four(text + before - 4);
    high ^= UINT64_C(0x3030303030303030);
    high &= (uint64_t)last_of_four[*fraction - low_count] << 32 | last_of_four[before];
    uint64_t fours = values_of_fours(high);
    *mantissa = (fours & UINT32_MAX) * (uint64_t)exact_powers[*fraction] +
                (fours >> 32) * (uint64_t)exact_powers[BLOCK_BYTES] + block_decimal(low);
    return word_is_digits(high) && block_is_digits(low);
}

/* Like long_mantissa(), for 1 to 20 characters with or without a point. */
static bool mantissa_before(const char *text, const char *end, uint64_t *mantissa, size_t *fraction)
{
    size_t length = (size_t)(end - text);
    if (length > BLOCK_BYTES)
        return long_mantissa(text, end, mantissa, fraction);
    block digits = digits_before(end, length, fraction);
    *mantissa = block_decimal(digits);
    *fraction %= BLOCK_BYTES;
    return block_is_digits(digits);
}

/* Where the exponent of [text, end) begins; `end` if there is none. */
static const char *find_exponent(const char *text, const char *end)
{
    size_t length = (size_t)(end - text);
    block last =
        block_load(end - BLOCK_BYTES) & block_last(length < BLOCK_BYTES ? length : BLOCK_BYTES);
    uint64_t marks = block_bits((block)((last | 0x20) == 'e'));
    return marks ? end - BLOCK_BYTES + __builtin_ctzll(marks) : end;
}

/* Takes a number with an exponent, or of 17 to 20 characters after its sign. */
static inline bool take_long(const char *text, const char *end, double *value)
{
    size_t negative = *text == '-';
    text += negative;
    const char *mark = find_exponent(text, end);
    int64_t exponent;
    uint64_t mantissa;
    size_t fraction;
    if ((mark == end && end - text <= BLOCK_BYTES) || !may_begin(text) ||
        scan_exponent(mark, end, &exponent) != end ||
        !mantissa_before(text, mark, &mantissa, &fraction) ||
        !nearest_by_product(mantissa, exponent - (int64_t)fraction, value))
        return false;
    *value *= signs[negative];
    return true;
}

/* Skips the white space before a token: usually one space. */
static inline const char *begin_token(const char *text, const char *end)
{
    if ((unsigned char)*text > ' ')
        return text;
    return text[0] == ' ' && (unsigned char)text[1] > ' ' ? text + 1 : skip_space(text, end);
}

/* Takes numbers while there are separators and `take` succeeds. Returns the end of the stored
 * values. */
static inline __attribute__((always_inline)) double *take_while(
    struct list *list, double *value, const double *last,
    bool (*take)(const char *text, const char *end, double *value))
{
    while (value < last && (list->separators || next_window(list))) {
        const char *end = list->window + __builtin_ctzll(list->separators);
        if (!take(begin_token(list->at, end), end, value))
            break;
        value++;
        list->at = end + 1;
        list->separators &= list->separators - 1;
    }
    return value;
}

/* Takes numbers from `at` on as long as they are plain. Returns how many; `*behind` receives the
 * end of the last one. */
static size_t take_plain_ones(const char *begin, const char *at, const char *end, double *values,
                              size_t count, const char **behind)
{
    /* An empty token still loads its separator and the byte after it. */
    const ptrdiff_t room = BLOCK_WINDOW + 1;
    if (at - begin < LOOK_BACK || end - begin < room)
        return 0;
    struct list list = {.at = at, .next_window = at, .last_window = end - room};
    /* Lists of integers seldom hold anything else; plain and long numbers are often mixed. */
    double *value = take_while(&list, values, values + count, take_short);
    for (const double *before = NULL; value != before;) {
        value = take_while(&list, value, values + count, take_plain);
        before = value;
        value = take_while(&list, value, values + count, take_long);
    }
    *behind = list.at - 1;
    return (size_t)(value - values);
}

/* Skips a comma and the white space around it; NULL if there is no comma. */
static const char *skip_comma(const char *text, const char *end)
{
    text = skip_space(text, end);
    return text < end && *text == ',' ? skip_space(text + 1, end) : NULL;
}

size_t number_scan_list(const char **text, const char *begin, const char *end, double *values,
                        size_t count)
{
    size_t read = 0;
    const char *at = skip_space(*text, end);
    for (; at && read < count; at = skip_comma(*text, end)) {
        const char *behind = at;
        size_t taken = take_plain_ones(begin, at, end, values + read, count - read, &behind);
        if (taken == 0) {
            behind = number_scan(at, end, values + read);
            taken = behind != NULL;
        }
        if (taken == 0)
            break;
        read += taken;
        *text = behind;
    }
    return read;
}

/* Lists of numbers as JSON text, many bytes at a time.
 *
 * The processor cannot predict where the next number ends, and a misprediction costs as much as a
 * conversion. So a list is read in windows of 64 bytes: each window is searched for all its
 * separators at once, and then every number takes the same steps, whatever its length and wherever
 * its point. Its digits are in the sixteen bytes before its separator: bytes before the number are
 * blanked, and digits before the point are moved over it. A number with more digits or with an
 * exponent takes a few more steps. Anything unusual, or too near to either end of the text, is left
 * to number_scan(). */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/text.h"
#include "proto/block.h"
#include "proto/decimal.h"
#include "proto/number.h"

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
    *value = (double)(int64_t)block_decimal(digits) / EXACT_POWERS[fraction % BLOCK_BYTES] *
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
    *mantissa = (fours & UINT32_MAX) * (uint64_t)EXACT_POWERS[*fraction] +
                (fours >> 32) * (uint64_t)EXACT_POWERS[BLOCK_BYTES] + block_decimal(low);
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

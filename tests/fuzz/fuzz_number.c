/* Fuzzes number_scan() with any text, compared with strtod and jansson; number_scan_list(),
 * compared with number_scan(); and number_format() and number_format_double() with any bits, read
 * back. */
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libfuzzer.h"
#include "proto/number.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

static int same_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* number_scan() accepts exactly what jansson accepts as a number, with strtod's value. jansson
 * allows white space around numbers, which callers of number_scan() skip, so texts with any are
 * left out. */
static void check_scan(const char *text, size_t size)
{
    double value = -77;
    const char *after = number_scan(text, text + size, &value);
    char *copy = malloc(size + 1);
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (after) {
        copy[after - text] = '\0';
        require(isfinite(value) && same_bits(value, strtod(copy, NULL)));
        json_t *parsed = json_loads(copy, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
        require(json_is_real(parsed) && same_bits(json_real_value(parsed), value));
        json_decref(parsed);
    } else if (!strpbrk(copy, " \t\r\n") && strlen(copy) == size) {
        json_t *parsed = json_loads(copy, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
        require(!json_is_real(parsed));
        json_decref(parsed);
    }
    free(copy);
}

static size_t spaces(const char *text, size_t size)
{
    size_t i = 0;
    while (i < size && memchr(" \t\r\n", text[i], 4))
        i++;
    return i;
}

/* number_scan_list() finds the numbers that number_scan() finds one by one. */
static void check_list(const char *begin, const char *text, const char *end)
{
    enum { MOST = 100 };
    const char *list = text, *after, *behind = text;
    double values[MOST], value;
    size_t read = number_scan_list(&list, begin, end, values, MOST), i = 0;
    const char *c = text + spaces(text, (size_t)(end - text));
    for (; i < MOST && (after = number_scan(c, end, &value)); i++) {
        require(i < read && same_bits(values[i], value));
        behind = after;
        after += spaces(after, (size_t)(end - after));
        if (after == end || *after != ',')
            after = end; /* no number begins there */
        else
            after++;
        c = after + spaces(after, (size_t)(end - after));
    }
    require(read == i && list == behind);
}

/* Checks the same text in the middle of others: alone it may be too short for the fast path. */
static void check_list_inside(const char *text, size_t size)
{
    static const char before[] = "[12345678901234567890,", after[] = ",1.5,255,0.123456789]";
    const size_t left = sizeof before - 1, right = size % 2 ? sizeof after - 1 : 0;
    char *whole = malloc(left + size + right);
    memcpy(whole, before, left);
    memcpy(whole + left, text, size);
    memcpy(whole + left + size, after, right);
    check_list(whole, whole + left, whole + left + size + right);
    free(whole);
}

static void check_format(float value)
{
    char text[NUMBER_FORMAT_BYTES + 1];
    size_t length = number_format(text, value);
    require(length > 0 && length <= NUMBER_FORMAT_BYTES);
    double back;
    const char *after = number_scan(text, text + length, &back);
    text[length] = '\0';
    if (isfinite(value))
        require(after == text + length && strtof(text, NULL) == value);
    else
        require(!after && strcmp(text, "null") == 0);
}

static void check_format_double(double value)
{
    char text[NUMBER_FORMAT_BYTES];
    size_t length = number_format_double(text, value);
    require(length > 0 && length <= sizeof text);
    double back;
    const char *after = number_scan(text, text + length, &back);
    require(isfinite(value) ? after == text + length && same_bits(back, value) : !after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_scan((const char *)data, size);
    check_list((const char *)data, (const char *)data, (const char *)data + size);
    check_list_inside((const char *)data, size);
    if (size >= sizeof(double)) {
        float single;
        double both;
        memcpy(&single, data, sizeof single);
        memcpy(&both, data, sizeof both);
        check_format(single);
        check_format_double(both);
    }
    return 0;
}

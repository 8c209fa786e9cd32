/* number_scan_list gives what number_scan gives for each number, whatever the list holds and
 * wherever its numbers are, and reads no byte outside the text. */
#include <math.h>

#include "proto/number.h"
#include "test_proto_support.h"

enum { MOST = 256, ROOM = 4096 };

/* One readable page between two that are not, made once. */
static char *guarded_page(void)
{
    static char *page;
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    if (!page) {
        char *pages = mmap(NULL, 3 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ck_assert_ptr_ne(pages, MAP_FAILED);
        page = pages + size;
        ck_assert_int_eq(mprotect(page, size, PROT_READ | PROT_WRITE), 0);
    }
    return page;
}

static const char *skip_space(const char *c, const char *end)
{
    while (c < end && strchr(" \t\r\n", *c) && *c)
        c++;
    return c;
}

/* The expected values of the list; `*behind` receives the offset after its last number. */
static size_t expected_list(const char *text, size_t length, double *values, size_t count,
                            size_t *behind)
{
    const char *end = text + length, *c = skip_space(text, end);
    size_t read = 0;
    *behind = 0;
    while (read < count) {
        const char *after = number_scan(c, end, &values[read]);
        if (!after)
            break;
        read++;
        *behind = (size_t)(after - text);
        c = skip_space(after, end);
        if (c == end || *c != ',')
            break;
        c = skip_space(c + 1, end);
    }
    return read;
}

/* Checks a list at `place`; everything in [begin, place + length) may be read. */
static void check_at(const char *begin, char *place, const char *text, size_t length, size_t count)
{
    double values[MOST], expected[MOST];
    size_t behind, wanted = expected_list(text, length, expected, count, &behind);
    memcpy(place, text, length);
    const char *c = place;
    size_t read = number_scan_list(&c, begin, place + length, values, count);
    ck_assert_msg(read == wanted && c == place + behind,
                  "%.*s: %zu numbers in %td bytes, not %zu in %zu", (int)length, text, read,
                  c - place, wanted, behind);
    ck_assert_msg(memcmp(values, expected, read * sizeof *values) == 0, "%.*s: another value",
                  (int)length, text);
}

/* Checks a list between unreadable pages: at the very beginning, and at the very end, with more and
 * with fewer number-like bytes before it. */
static void check_count(const char *text, size_t length, size_t count)
{
    static const char before[] =
        "[[123456789.123456789,0.5],[8888888888888888888888888888888888888,";
    const size_t size = (size_t)sysconf(_SC_PAGESIZE), less = sizeof before - 1;
    char *page = guarded_page(), *place = page + size - length;
    check_at(page, page, text, length, count);
    memcpy(place - less, before, less);
    check_at(page, place, text, length, count);
    check_at(place - 20 - length % 3, place, text, length, count);
}

static void check_list(const char *text)
{
    check_count(text, strlen(text), MOST);
}

/* Checks `copies` of a number after a first one of `shift` bytes, which moves them across the
 * windows: the first window begins with the list. */
static void check_copies(const char *number, int copies, int shift, const char *separator)
{
    char text[ROOM];
    int used = snprintf(text, sizeof text, "%.*s", shift, "123456789.123456789");
    for (int i = 0; i < copies; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%s%s", separator, number);
    check_list(text);
}

static uint64_t random_state = 0x9E3779B97F4A7C15;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int random_below(int limit)
{
    return (int)(random_bits() % (uint64_t)limit);
}

/* `digits` random digits with a point before the last `fraction`; the first digit is 1 to 9 unless
 * it is the whole integer. */
static void random_number(char *text, int digits, int fraction)
{
    for (int i = 0; i < digits; i++) {
        if (i == digits - fraction)
            *text++ = '.';
        bool alone = digits - fraction == 1;
        *text++ = (char)(i == 0 && !alone ? '1' + random_below(9) : '0' + random_below(10));
    }
    *text = '\0';
}

START_TEST(takes_every_length_and_point)
{
    static const char *const exponents[] = {"",    "e5",   "E-3",  "e+12",  "e0",
                                            "E00", "e-30", "e-70", "e0300", "e-00000000000001"};
    char number[96];
    for (int digits = 1; digits <= 40; digits++)
        for (int fraction = 0; fraction < digits; fraction++)
            for (size_t i = 0; i < sizeof exponents / sizeof *exponents; i++) {
                size_t negative = random_bits() & 1;
                number[0] = '-';
                random_number(number + negative, digits, fraction);
                strcat(number, exponents[i]);
                check_copies(number, 9, 1 + random_below(19), random_below(2) ? "," : ", ");
            }
}
END_TEST

/* Zeros combine with signs, points and mantissas of all sizes. */
START_TEST(takes_zeros_and_nines)
{
    char number[64];
    for (int digits = 1; digits <= 34; digits++)
        for (int nines = 0; nines <= digits; nines++) {
            int used = snprintf(number, sizeof number, "%s0.", nines % 2 ? "-" : "");
            for (int i = 0; i < digits; i++)
                number[used++] = i < nines ? '9' : '0';
            number[used] = '\0';
            check_copies(number, 5, 3, ",");
            for (int i = 0; i < digits; i++)
                number[used - 1 - i] = i < nines ? '9' : '0';
            check_copies(number, 5, 4, ",");
        }
    for (int digits = 1; digits <= 24; digits++) {
        memset(number, '9', (size_t)digits);
        number[digits] = '\0';
        check_copies(number, 7, 2, ",");
    }
    /* About what 64 bits hold. */
    static const char *const large[] = {"18446744073709551615",   "18446744073709551616",
                                        "0.18446744073709551616", "-1.9999999999999999999",
                                        "19999999999999999999",   "9999999999999999999"};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        check_copies(large[i], 7, 2, ",");
    check_list("0,-0,0.0,-0.0,0e5,-0e-5,0,-0,0.0,-0.0,0e5,-0e-5,0,-0,0.0,-0.0,0e5,-0e-5,0,-0,0.0");
}
END_TEST

/* White space before a comma stops the fast path, which then resumes at any distance from the
 * unreadable page, with a number that is loaded together with the bytes before it. */
START_TEST(looks_back_no_further_than_the_text)
{
    char text[ROOM];
    for (int spaces = 1; spaces < 60; spaces++) {
        int used = snprintf(text, sizeof text, "1%*s", spaces, "");
        for (int i = 0; i < 30; i++)
            used += snprintf(text + used, sizeof text - (size_t)used, ",%de%d", i % 10, i);
        check_list(text);
    }
}
END_TEST

START_TEST(takes_any_white_space)
{
    static const char *const separators[] = {
        ",", ", ", " ,", " , ", ",\n", ",\t", ",\r\n ", "\n,\n", ",\n            "};
    for (size_t i = 0; i < sizeof separators / sizeof *separators; i++)
        for (int shift = 1; shift <= 19; shift++) {
            check_copies("127.314159", 20, shift, separators[i]);
            check_copies("255", 40, shift, separators[i]);
        }
}
END_TEST

/* Texts that are not numbers or only begin like one. */
static const char *const wrong[] = {
    "1.",
    ".5",
    "01",
    "-01",
    "00",
    "00.5",
    "-",
    "--1",
    "1-2",
    "-.5",
    "1e",
    "1e+",
    "1e-",
    "+1",
    "1..2",
    "1.2.3",
    "1.2.",
    "1.5-",
    "1/2",
    "/1",
    "1/",
    ":1",
    "1:",
    "1.5:",
    "1.:5",
    "\x80",
    "1\x80",
    "1.\xFF",
    "1.5\xB0",
    "\xB1",
    "",
    " ",
    "[1]",
    "1]",
    "1.5]",
    "1]2",
    ",",
    "-,",
    "1.5 ]",
    "x",
    "1x",
    "1e5x",
    "1e5.5",
    "1e5-",
    "1e5e",
    "1e999",
    "-1e400",
    "null",
    "1 2",
    "1.5 2",
    "0x10",
    "1,",
    "\"1\"",
    "1e1/",
    "1.e5",
    "12345678.",
    "123456789012345.",
    "1234567890123456789.",
    "0123456789012345",
    "1234567-",
    "123456-8",
    "1.23456789012345-7",
    "1.2345678901234567-",
    "12345678901234567.1-",
    "-1234567890123.45.67",
    "1234567890123456789"
    "012345678901234567890",
    "0.00000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000001"};

/* After any number of valid ones and before others. */
START_TEST(stops_at_what_is_no_number)
{
    static const char *const good[] = {"7", "255", "127.314159", "-0.123456789", "1.5e-05"};
    char text[ROOM];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (int before = 0; before < 24; before++)
            for (size_t k = 0; k < sizeof good / sizeof *good; k++) {
                int used = 0;
                for (int n = 0; n < before; n++)
                    used += snprintf(text + used, sizeof text - (size_t)used, "%s,", good[k]);
                used += snprintf(text + used, sizeof text - (size_t)used, "%s", wrong[i]);
                check_list(text);
                snprintf(text + used, sizeof text - (size_t)used,
                         ",%s,1,2,3.25,4,5,6,7,8,9,10,11,12,"
                         "13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36]",
                         good[k]);
                check_list(text);
            }
}
END_TEST

/* Tries every byte in and after a number: of a few digits, of up to sixteen, of more, and in
 * exponents. */
START_TEST(stops_at_every_other_byte)
{
    static const char *const lists[] = {
        "1234,5,67,890,9999,0,1,22,4444,55,6,7,8888,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
        "12.5,345,0.0625,12345678.25,7,8,9.75,1000000,0.123456789012345,2,3,4,5,6,7,8,9,10,11,12,"
        "13",
        "0.12345678901234567,1.2345678901234567,12.345678901234567,1234.5678901234567,"
        "1234.567890123456,0.0123456789012345678,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22",
        "1.5e-05,1.23456789e+12,0.12345678901234567E-7,1e3,2E0,3,4,5,6,7,8,9,10,11,12,13,14,15,16,"
        "17",
    };
    char text[ROOM];
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (int byte = 1; byte < 256; byte++)
            for (size_t at = 0; at < strlen(lists[i]); at++) {
                strcpy(text, lists[i]);
                text[at] = (char)byte;
                check_list(text);
            }
}
END_TEST

START_TEST(stops_at_every_end_and_count)
{
    const char *text =
        "127.314159,0.00392156886, -0.123456789,1.5e-05,255,0,17,-1e3,"
        "0.1000000000000000055511151231257827,12345678,123456789,1.7976931348623157e308,"
        "3,1,4,1,5,9,2,6,5,3,5,8,9,7,9,3,2,3,8,4,6,2.64338327950288,419,71,69,39";
    for (size_t length = 0; length <= strlen(text); length++)
        check_count(text, length, MOST);
    for (size_t count = 0; count < 50; count++)
        check_count(text, strlen(text), count);
}
END_TEST

/* Compares with strtod itself, not number_scan, on lists in many printf formats. */
START_TEST(agrees_with_strtod)
{
    static const char *const formats[] = {"%.6f", "%.9f", "%.4f",  "%.17g", "%.9g",
                                          "%.7g", "%.3e", "%.15g", "%.0f",  "%.12f"};
    char text[ROOM];
    for (int round = 0; round < REPETITIONS(20000); round++) {
        int used = 0, count = 1 + random_below(60), format = random_below(12);
        double expected[MOST], values[MOST];
        for (int i = 0; i < count; i++) {
            double value = ldexp((double)(int64_t)random_bits(), -66 + random_below(20));
            const char *as = formats[format < 10 ? format : random_below(10)];
            int start = used;
            used += snprintf(text + used, sizeof text - (size_t)used, as, value);
            expected[i] = strtod(text + start, NULL);
            used += snprintf(text + used, sizeof text - (size_t)used, i + 1 < count ? "," : "]");
        }
        const char *c = text;
        ck_assert_uint_eq(number_scan_list(&c, text, text + used, values, MOST), (size_t)count);
        ck_assert_ptr_eq(c, text + used - 1);
        ck_assert_msg(memcmp(values, expected, (size_t)count * sizeof *values) == 0, "%s", text);
    }
}
END_TEST

RUN_TESTS("proto/number_list", takes_every_length_and_point, takes_zeros_and_nines,
          looks_back_no_further_than_the_text, takes_any_white_space, stops_at_what_is_no_number,
          stops_at_every_other_byte, stops_at_every_end_and_count, agrees_with_strtod)

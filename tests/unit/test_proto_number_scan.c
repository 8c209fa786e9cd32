/* number_scan: the grammar of RFC 8259, and the same bits as strtod. */
#include <locale.h>
#include <math.h>

#include "proto/number.h"
#include "test_proto_support.h"

/* How many bytes number_scan takes of a text that ends at an unreadable page; -1 if it refuses. */
static long scanned(const char *text, double *value)
{
    struct guarded copy = guarded_text(text);
    const char *after = number_scan(copy.text, copy.text + copy.length, value);
    long bytes = after ? after - copy.text : -1;
    guarded_free(&copy);
    return bytes;
}

static void check_value(const char *text)
{
    double value = -77, expected = strtod(text, NULL);
    long bytes = scanned(text, &value);
    ck_assert_msg(bytes == (long)strlen(text), "%s: took %ld bytes", text, bytes);
    ck_assert_msg(memcmp(&value, &expected, sizeof value) == 0, "%s: %a, expected %a", text, value,
                  expected);
}

START_TEST(accepts_the_grammar)
{
    const char *const texts[] = {"0",     "-0",    "7",     "-12",    "1234567890", "0.5",
                                 "-0.5",  "0.0",   "10.25", "1e5",    "1E5",        "1e+5",
                                 "1e-5",  "0e0",   "-0e-0", "0e999",  "1.5e10",     "12e0",
                                 "0.1e1", "100.0", "1e308", "1e-400", "-1e-400",    "0.0e5"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        check_value(texts[i]);
}
END_TEST

START_TEST(refuses_what_json_has_not)
{
    const char *const texts[] = {"",     "-",   "+1",    ".5",   "1.",   "1.e5", "1e",  "1e+",
                                 "1e-",  "01",  "-01",   "00",   "00.5", "NaN",  "nan", "Infinity",
                                 "-inf", "inf", "0x10",  "abc",  "-.5",  "--1",  "e5",  " 1",
                                 "1e5x", "1.5", "\"1\"", "null", "true", "[1]",  "-a",  "1ee5"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        double value;
        long bytes = scanned(texts[i], &value);
        /* If something follows a number, only the number is taken. */
        long prefix = strcmp(texts[i], "0x10") == 0   ? 1
                      : strcmp(texts[i], "1e5x") == 0 ? 3
                      : strcmp(texts[i], "1.5") == 0  ? 3
                                                      : -1;
        ck_assert_msg(bytes == prefix, "%s: took %ld bytes", texts[i], bytes);
    }
}
END_TEST

START_TEST(refuses_overflow)
{
    double value;
    ck_assert_int_eq(scanned("1e309", &value), -1);
    ck_assert_int_eq(scanned("-1e999", &value), -1);
    ck_assert_int_eq(scanned("1e99999999999999999999", &value), -1);
    ck_assert_int_eq(scanned("1.7976931348623159e308", &value), -1);
    check_value("1.7976931348623157e308");
    check_value("1.7976931348623158e308");
    check_value("1e-99999999999999999999");
}
END_TEST

START_TEST(stops_at_the_end)
{
    const char *text = "123.456e7";
    for (size_t length = 0; length <= strlen(text); length++) {
        struct guarded copy = guarded_copy(text, length);
        double value;
        const char *after = number_scan(copy.text, copy.text + length, &value);
        ck_assert(!after || after == copy.text + length);
        guarded_free(&copy);
    }
}
END_TEST

START_TEST(keeps_the_sign_of_zero)
{
    double value;
    ck_assert_int_eq(scanned("-0", &value), 2);
    ck_assert(signbit(value));
    ck_assert_int_eq(scanned("-0.00e7", &value), 7);
    ck_assert(signbit(value));
    ck_assert_int_eq(scanned("0", &value), 1);
    ck_assert(!signbit(value));
}
END_TEST

/* Numbers known to break careless parsers. */
static const char *const HARD_CASES[] = {
    "9007199254740993",
    "9007199254740992.5",
    "9007199254740993.0000000000000000000000000000000000000000000000001",
    "4503599627370496.5",
    "4503599627370497.5",
    "0.500000000000000166533453693773481063544750213623046875",
    "3.518437208883201171875e13",
    "62.5364939768271845828",
    "8.10109172351e-10",
    "1.50000000000000011102230246251565",
    "9007199254740991.4999999999999999999999999999999995",
    "6929495644600919.5",
    "3.7455744005952583e15",
    "2.2250738585072011e-308",
    "2.2250738585072012e-308",
    "2.2250738585072014e-308",
    "4.9406564584124654e-324",
    "2.4703282292062327e-324",
    "2.4703282292062328e-324",
    "7.2057594037927933e16",
    "36028797018963968.5",
    "1.0000000000000000000000000000000000000000000000000000000000000001",
    "10000000000000000000",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999",
    "9223372036854775807",
    "0.000000000000000000000000000000000000000000000000000000000000000001",
    "8.98846567431158e307",
    "1.448997445238699",
    "5.3e-64",
    "5.3e64",
    "123456789012345678e-64",
    "123456789012345678e64",
};

START_TEST(rounds_hard_cases)
{
    for (size_t i = 0; i < sizeof HARD_CASES / sizeof *HARD_CASES; i++)
        check_value(HARD_CASES[i]);
}
END_TEST

/* The exact halfway point above a double, then the smallest bit more, 1100 places after the point.
 * Above an even double the first rounds down and the second up. */
START_TEST(rounds_numbers_of_hundreds_of_digits)
{
    char text[2000];
    for (int exponent = -1022; exponent <= 60; exponent += 7) {
        for (int odd = 0; odd <= 1; odd++) {
            double low = ldexp(1 + ldexp(2 + odd, -52), exponent);
            /* Long double has the extra bit that this needs, and the smaller exponents. */
            long double halfway = (long double)low + ldexpl(1, exponent - 53);
            snprintf(text, sizeof text, "%.1100Lf", halfway);
            check_value(text);
            text[strlen(text) - 1] = '1';
            check_value(text);
        }
    }
}
END_TEST

START_TEST(takes_very_long_numbers)
{
    enum { DIGITS = 1000000 };
    char *text = malloc(DIGITS + 32);
    memset(text, '0', DIGITS);
    text[1] = '.';
    strcpy(text + DIGITS, "25e999999"); /* 0.000...25 times a large power */
    check_value(text);
    memset(text, '1', DIGITS);
    strcpy(text + DIGITS, "e-999990");
    check_value(text);
    text[DIGITS] = '\0';
    double value;
    ck_assert_int_eq(scanned(text, &value), -1);
    free(text);
}
END_TEST

static uint64_t random_state = 0x9E3779B97F4A7C15;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void check_fast(const char *text, size_t length)
{
    double value = -77, expected = strtod(text, NULL);
    const char *after = number_scan(text, text + length, &value);
    if (isinf(expected))
        ck_assert_msg(!after, "%s: %a, expected a refusal", text, value);
    else
        ck_assert_msg(after == text + length && memcmp(&value, &expected, sizeof value) == 0,
                      "%s: %a, expected %a", text, value, expected);
}

/* Any double, with any number of digits. */
START_TEST(agrees_with_strtod_on_random_doubles)
{
    char text[64];
    for (int i = 0; i < REPETITIONS(300000); i++) {
        uint64_t bits = random_bits();
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        int digits = (int)(random_bits() % 22);
        int length = snprintf(text, sizeof text, "%.*e", digits, value);
        check_fast(text, (size_t)length);
    }
}
END_TEST

/* Common decimals: digits anywhere around the point, exponents near zero. */
START_TEST(agrees_with_strtod_on_random_decimals)
{
    char text[96];
    for (int i = 0; i < REPETITIONS(300000); i++) {
        unsigned long long digits = random_bits() >> (random_bits() % 60);
        int length;
        switch (random_bits() % 3) {
        case 0:
            length = snprintf(text, sizeof text, "%llu", digits);
            break;
        case 1:
            length = snprintf(text, sizeof text, "-%llu.%llu", digits % 1000,
                              (unsigned long long)random_bits() >> (random_bits() % 60));
            break;
        default:
            length =
                snprintf(text, sizeof text, "%llue%d", digits, (int)(random_bits() % 140) - 70);
        }
        check_fast(text, (size_t)length);
    }
}
END_TEST

START_TEST(ignores_the_locale)
{
    const char *const locales[] = {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8"};
    for (size_t i = 0; i < 3; i++)
        setlocale(LC_ALL, locales[i]); /* if the machine has it */
    double value;
    ck_assert_int_eq(scanned("0.1000000000000000055511151231257827", &value), 36);
    ck_assert(value == 0.1);
    ck_assert_int_eq(scanned("1.5e-300", &value), 8);
    ck_assert(value == 1.5e-300);
    setlocale(LC_ALL, "C");
}
END_TEST

RUN_TESTS("proto/number_scan", accepts_the_grammar, refuses_what_json_has_not, refuses_overflow,
          stops_at_the_end, keeps_the_sign_of_zero, rounds_hard_cases,
          rounds_numbers_of_hundreds_of_digits, takes_very_long_numbers,
          agrees_with_strtod_on_random_doubles, agrees_with_strtod_on_random_decimals,
          ignores_the_locale)

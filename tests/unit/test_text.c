/* utf8: which byte sequences are characters. */
#include "core/text.h"
#include "test_proto_support.h"

static void check_character(const char *text, size_t expected)
{
    struct guarded copy = guarded_copy(text, strlen(text) + 1);
    ck_assert_msg(utf8_character(copy.text) == expected, "%02x %02x: %zu, expected %zu",
                  (unsigned char)text[0], (unsigned char)text[1], utf8_character(copy.text),
                  expected);
    guarded_free(&copy);
}

START_TEST(accepts_each_length)
{
    check_character("a", 1);
    check_character("\x01", 1);
    check_character("\x7F", 1);
    check_character("\xC2\x80", 2);
    check_character("\xDF\xBF", 2);
    check_character("\xE0\xA0\x80", 3);
    check_character("\xED\x9F\xBF", 3);
    check_character("\xEF\xBF\xBD", 3);
    check_character("\xF0\x90\x80\x80", 4);
    check_character("\xF4\x8F\xBF\xBF", 4);
}
END_TEST

START_TEST(refuses_everything_else)
{
    check_character("", 0);
    check_character("\x80", 0);
    check_character("\xC0\x80", 0);         /* overlong NUL */
    check_character("\xC1\xBF", 0);         /* overlong */
    check_character("\xE0\x9F\xBF", 0);     /* overlong */
    check_character("\xED\xA0\x80", 0);     /* surrogate */
    check_character("\xF0\x8F\xBF\xBF", 0); /* overlong */
    check_character("\xF4\x90\x80\x80", 0); /* past U+10FFFF */
    check_character("\xF5\x80\x80\x80", 0);
    check_character("\xFF", 0);
}
END_TEST

START_TEST(stops_at_the_end_of_a_cut_character)
{
    check_character("\xC2", 0);
    check_character("\xE2\x82", 0);
    check_character("\xF0\x9F\x98", 0);
    check_character("\xF0\x9F", 0);
    check_character("\xE2\x28\xA1", 0);
}
END_TEST

RUN_TESTS("text", accepts_each_length, refuses_everything_else, stops_at_the_end_of_a_cut_character)

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

START_TEST(controls_are_not_shown)
{
    static const char *const SHOWN[][2] = {
        {"a\x1b[2J\x7f", "a?[2J?"},
        {"\xC2\x85\xC2\xA0", "??\xC2\xA0"},
        {"\xE2\x80\x8E\xE2\x80\x8F\xE2\x80\x90", "??????\xE2\x80\x90"},
        {"\xE2\x80\xA7\xE2\x80\xA8\xE2\x80\xAE\xE2\x80\xAF", "\xE2\x80\xA7??????\xE2\x80\xAF"},
        {"\xE2\x81\xA5\xE2\x81\xA6\xE2\x81\xA9\xE2\x81\xAA", "\xE2\x81\xA5??????\xE2\x81\xAA"},
        {"\xD8\x9C\xD8\x9B\xE2\x82\xAC", "??\xD8\x9B\xE2\x82\xAC"},
    };
    for (size_t i = 0; i < sizeof SHOWN / sizeof *SHOWN; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s", SHOWN[i][0]);
        text_make_printable(text);
        ck_assert_str_eq(text, SHOWN[i][1]);
    }
}
END_TEST

static void check_hidden(const char *url, const char *expected)
{
    char shown[64];
    text_hide_user(url, shown, sizeof shown);
    ck_assert_str_eq(shown, expected);
}

START_TEST(who_asks_is_hidden_in_addresses)
{
    check_hidden("http://host:1/path", "http://host:1/path");
    check_hidden("http://name:secret@host:1/path", "http://***@host:1/path");
    check_hidden("http://name:s/ec@re?t@host", "http://***@host"); /* not encoded */
    check_hidden("name:secret@host", "***@host");
    check_hidden("name:s://e@host", "name:s://***@host");
    check_hidden("", "");
    char cut[12];
    text_hide_user("http://name:secret@host", cut, sizeof cut);
    ck_assert_str_eq(cut, "http://***@");
}
END_TEST

RUN_TESTS("text", who_asks_is_hidden_in_addresses, accepts_each_length, refuses_everything_else,
          stops_at_the_end_of_a_cut_character, controls_are_not_shown)

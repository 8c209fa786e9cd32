/* UTF-8 of strangers: what is whole, what may be shown, and what an address tells. */
#include <jansson.h>
#include <string.h>

#include "clients/c/text.h"
#include "support.h"

/* jansson takes no string that is not UTF-8; what is left must be one, and what was one all of it.
 */
START_TEST(what_is_left_is_whole_for_jansson)
{
    for (unsigned first = 0x80; first <= 0xFF; first++) {
        for (unsigned second = 0x70; second <= 0xD0; second++) {
            for (size_t more = 0; more < 3; more++) {
                char text[6] = {(char)first, (char)second}, kept[6];
                memset(text + 2, 0xA0, more);
                memcpy(kept, text, sizeof kept);
                text_keep_whole(kept);
                json_t *before = json_string(text), *after = json_string(kept);
                ck_assert_msg(after && (!before || strcmp(text, kept) == 0), "%02x %02x and %zu",
                              first, second, more);
                json_decref(before);
                json_decref(after);
            }
        }
    }
    uint32_t code;
    ck_assert_uint_eq(text_character("", &code), 0);
    ck_assert_uint_eq(text_character("a", &code), 1);
    ck_assert_uint_eq(text_character("\U0001F600", &code), 4);
    ck_assert_uint_eq(code, 0x1F600);
}
END_TEST

START_TEST(what_is_cut_is_taken_out)
{
    static const char *const WHOLE[][2] = {
        {"a\xC3", "a"},
        {"a\xE2\x82", "a"},
        {"\xF0\x9F\x98", ""},
        {"\xE2\x82' b", "' b"},
        {"\x80x", "x"},
        {"\xED\xA0\x80z", "z"},
        {"\xC0\xAF", ""},
        {"\xC3\xA9", "\xC3\xA9"},
        {"", ""},
        {"a\xE2\x82\xAC", "a\xE2\x82\xAC"},
    };
    for (size_t i = 0; i < sizeof WHOLE / sizeof *WHOLE; i++) {
        char text[16];
        snprintf(text, sizeof text, "%s", WHOLE[i][0]);
        text_keep_whole(text);
        ck_assert_str_eq(text, WHOLE[i][1]);
    }
}
END_TEST

START_TEST(what_a_terminal_obeys)
{
    static const uint32_t CONTROLS[] = {0,      0x1B,   0x7F,   0x80,   0x9B,
                                        0x9F,   0x061C, 0x200E, 0x200F, 0x2028,
                                        0x2029, 0x202A, 0x202E, 0x2066, 0x2069};
    static const uint32_t SHOWN[] = {' ', '~', 0xA0, 0xE9, 0x200D, 0x2027, 0x202F, 0x20AC, 0x1F600};
    for (size_t i = 0; i < sizeof CONTROLS / sizeof *CONTROLS; i++)
        ck_assert_msg(text_is_control(CONTROLS[i]), "U+%04X", CONTROLS[i]);
    for (size_t i = 0; i < sizeof SHOWN / sizeof *SHOWN; i++)
        ck_assert_msg(!text_is_control(SHOWN[i]), "U+%04X", SHOWN[i]);
}
END_TEST

START_TEST(an_address_without_its_password)
{
    static const char *const URLS[][2] = {
        {"http://me:secret@host:80/a", "http://host:80/a"},
        {"http://a@b@host", "http://host"},
        {"https://host/a@b", "https://host/a@b"},
        {"unix:/run/a@b", "unix:/run/a@b"},
        {"me:secret@host", "host"},
        {"http://me:se/cr?et@host/a", "http://host/a"},
        {"http://host:80/a@b", "http://host:80/a@b"},
        {"http://[::1]:80/a@b", "http://[::1]:80/a@b"},
        {"http://", "http://"},
    };
    for (size_t i = 0; i < sizeof URLS / sizeof *URLS; i++) {
        char *shown = text_without_password(URLS[i][0]);
        ck_assert_str_eq(shown, URLS[i][1]);
        free(shown);
    }
}
END_TEST

TEST_MAIN("client text", what_is_left_is_whole_for_jansson, what_is_cut_is_taken_out,
          what_a_terminal_obeys, an_address_without_its_password)

/* json: strings that any reader accepts, errors, lists of numbers. */
#include <jansson.h>
#include <math.h>

#include "proto/json.h"
#include "test_proto_support.h"

static void check_string(const char *text, const char *expected)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    json_append_string(&body, text);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, expected);
    buffer_close(&body);
}

START_TEST(escapes_strings)
{
    check_string("", "\"\"");
    check_string("plain", "\"plain\"");
    check_string("say \"hi\" \\ there", "\"say \\\"hi\\\" \\\\ there\"");
    check_string("\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\"");
    check_string("\x01\x1F\x7F", "\"\\u0001\\u001f\\u007f\"");
    check_string("gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80", "\"gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80\"");
}
END_TEST

START_TEST(replaces_what_is_not_utf8)
{
    check_string("\xFF", "\"\xEF\xBF\xBD\"");
    check_string("a\xC3", "\"a\xEF\xBF\xBD\"");
    check_string("\xED\xA0\x80z", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz\"");
    check_string("a\xE2\x82\"b", "\"a\xEF\xBF\xBD\xEF\xBF\xBD\\\"b\"");
}
END_TEST

/* Any bytes become a string that jansson accepts; valid UTF-8 comes back unchanged. */
START_TEST(every_string_is_valid_json)
{
    for (unsigned first = 1; first < 256; first++) {
        for (unsigned second = 1; second < 256; second++) {
            char text[] = {(char)first, (char)second, '\0'};
            struct buffer body;
            buffer_init(&body, 1 << 16);
            json_append_string(&body, text);
            json_error_t error;
            json_t *parsed = json_loadb(body.data, body.length, JSON_DECODE_ANY, &error);
            ck_assert_msg(parsed != NULL, "%02x %02x: %s", first, second, error.text);
            if (first < 128 && second < 128)
                ck_assert_str_eq(json_string_value(parsed), text);
            json_decref(parsed);
            buffer_close(&body);
        }
    }
}
END_TEST

START_TEST(writes_errors)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    json_append_error(&body, "input 'x': \"y\"");
    ck_assert_uint_eq(body.length, 29);
    ck_assert_mem_eq(body.data, "{\"error\": \"input 'x': \\\"y\\\"\"}", 29);
    buffer_close(&body);
}
END_TEST

START_TEST(writes_integers)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    json_append_integers(&body, (const int32_t[]){0, -1, 10, INT32_MAX, INT32_MIN}, 5);
    json_append_integers(&body, NULL, 0);
    const char *expected = "0,-1,10,2147483647,-2147483648";
    ck_assert_uint_eq(body.length, strlen(expected));
    ck_assert_mem_eq(body.data, expected, body.length);
    buffer_close(&body);
}
END_TEST

/* More numbers than one reservation holds. */
START_TEST(writes_long_lists)
{
    enum { COUNT = 1001 };
    float values[COUNT];
    int32_t integers[COUNT];
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)i / 8;
        integers[i] = -i;
    }
    struct buffer body;
    buffer_init(&body, 1 << 20);
    buffer_text(&body, "[[");
    json_append_floats(&body, values, COUNT);
    buffer_text(&body, "],[");
    json_append_integers(&body, integers, COUNT);
    buffer_text(&body, "]]");
    json_t *parsed = json_loadb(body.data, body.length, 0, NULL);
    ck_assert_ptr_nonnull(parsed);
    for (size_t i = 0; i < COUNT; i++) {
        ck_assert(json_real_value(json_array_get(json_array_get(parsed, 0), i)) ==
                  (double)values[i]);
        ck_assert_int_eq(json_integer_value(json_array_get(json_array_get(parsed, 1), i)),
                         integers[i]);
    }
    ck_assert_uint_eq(json_array_size(json_array_get(parsed, 0)), COUNT);
    json_decref(parsed);
    buffer_close(&body);
}
END_TEST

START_TEST(numbers_stop_at_the_limit)
{
    struct buffer body;
    buffer_init(&body, 100);
    json_append_floats(&body, (const float[1000]){0}, 1000);
    ck_assert(body.failed);
    ck_assert_uint_le(body.length, 100);
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/json", escapes_strings, replaces_what_is_not_utf8, every_string_is_valid_json,
          writes_errors, writes_integers, writes_long_lists, numbers_stop_at_the_limit)

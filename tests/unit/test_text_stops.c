/* stops: wherever the pieces of a text are cut, the same comes out. */
#include "proto/text/stops.h"
#include "test_proto_support.h"

/* Feeds `text` in pieces of `size` bytes. */
static void expect_cut(const char *const *strings, size_t count, const char *text,
                       const char *expected, size_t size)
{
    struct error err = ERROR_INIT;
    struct stops stops;
    struct buffer out;
    buffer_init(&out, 1 << 16);
    ck_assert_int_eq(stops_init(&stops, strings, count, &err), 0);
    bool stopped = false;
    size_t length = strlen(text);
    for (size_t at = 0; at < length && !stopped; at += size) {
        size_t part = length - at < size ? length - at : size;
        struct guarded piece = guarded_copy(text + at, part);
        stopped = stops_add(&stops, piece.text, part, &out);
        guarded_free(&piece);
    }
    if (!stopped)
        stopped = stops_end(&stops, &out);
    ck_assert_msg(out.length == strlen(expected) &&
                      memcmp(out.length ? out.data : "", expected, out.length) == 0,
                  "'%s' in pieces of %zu: '%.*s', expected '%s'", text, size, (int)out.length,
                  out.data ? out.data : "", expected);
    ck_assert(stopped == (strlen(expected) < length));
    stops_close(&stops);
    buffer_close(&out);
}

static void expect(const char *text, const char *expected)
{
    static const char *const strings[] = {"\n\n", "stop", "aab", "\xE6\xBC\xA2!"};
    for (size_t size = 1; size <= 12; size++)
        expect_cut(strings, 4, text, expected, size);
}

START_TEST(finds_stop_strings_across_pieces)
{
    expect("", "");
    expect("nothing here", "nothing here");
    expect("a line\n\nanother", "a line");
    expect("stop", "");
    expect("sto", "sto");
    expect("ststop it", "st");
    expect("aaaab", "aa");
    expect("aaaa", "aaaa");
    expect("line\nsto\n\n", "line\nsto");
    expect("\xE6\xBC\xA2\xE6\xBC\xA2! x", "\xE6\xBC\xA2");
    expect("\xE6\xBC\xA2\xE6\xBC\xA2", "\xE6\xBC\xA2\xE6\xBC\xA2");
}
END_TEST

START_TEST(the_earlier_one_counts)
{
    static const char *const strings[] = {"cd", "bcde"};
    for (size_t size = 1; size < 8; size++)
        expect_cut(strings, 2, "abcdf", "ab", size);
    for (size_t size = 1; size < 8; size++)
        expect_cut(strings, 2, "abcde", "a", size);
    for (size_t size = 1; size < 8; size++)
        expect_cut(strings, 2, "abcd", "ab", size);
}
END_TEST

START_TEST(holds_nothing_that_cannot_be_one)
{
    static const char *const strings[] = {"stop"};
    struct error err = ERROR_INIT;
    struct stops stops;
    struct buffer out;
    buffer_init(&out, 100);
    ck_assert_int_eq(stops_init(&stops, strings, 1, &err), 0);
    ck_assert(!stops_add(&stops, "a st", 4, &out));
    ck_assert_uint_eq(out.length, 2);
    ck_assert(!stops_add(&stops, "ar", 2, &out));
    ck_assert_uint_eq(out.length, 6);
    stops_close(&stops);
    buffer_close(&out);
}
END_TEST

START_TEST(is_bounded)
{
    const char *many[STOPS_MAX + 1];
    for (size_t i = 0; i < STOPS_MAX + 1; i++)
        many[i] = "x";
    struct error err = ERROR_INIT, empty = ERROR_INIT;
    struct stops stops;
    ck_assert_int_eq(stops_init(&stops, many, STOPS_MAX + 1, &err), -1);
    ck_assert_str_eq(err.text, "17 stop strings, at most 16 are allowed");
    ck_assert_int_eq(stops_init(&stops, (const char *const[]){"a", ""}, 2, &empty), -1);
    ck_assert_str_eq(empty.text, "stop string 1 has 0 bytes, expected 1 to 256");
}
END_TEST

RUN_TESTS("text_stops", finds_stop_strings_across_pieces, the_earlier_one_counts,
          holds_nothing_that_cannot_be_one, is_bounded)

/* buffer: growth, the limit, sticky failure, transfer of the bytes. */
#include "proto/buffer.h"
#include "test_proto_support.h"

START_TEST(appends_in_order)
{
    struct buffer buffer;
    buffer_init(&buffer, 1 << 20);
    buffer_text(&buffer, "one ");
    buffer_append(&buffer, "two\0", 4);
    buffer_format(&buffer, " %d %s", 3, "four");
    ck_assert_uint_eq(buffer.length, 15);
    ck_assert_mem_eq(buffer.data, "one two\0 3 four", 15);
    ck_assert(!buffer.failed);
    buffer_close(&buffer);
}
END_TEST

START_TEST(grows_past_many_doublings)
{
    struct buffer buffer;
    buffer_init(&buffer, 1 << 20);
    for (int i = 0; i < 100000; i++)
        buffer_append(&buffer, &(char){(char)i}, 1);
    ck_assert_uint_eq(buffer.length, 100000);
    for (int i = 0; i < 100000; i++)
        ck_assert_int_eq(buffer.data[i], (char)i);
    buffer_close(&buffer);
}
END_TEST

START_TEST(fills_exactly_to_the_limit)
{
    struct buffer buffer;
    buffer_init(&buffer, 1000);
    for (int i = 0; i < 1000; i++)
        buffer_append(&buffer, "x", 1);
    ck_assert(!buffer.failed);
    ck_assert_uint_eq(buffer.length, 1000);
    ck_assert_uint_le(buffer.capacity, 1000);
    buffer_append(&buffer, "x", 1);
    ck_assert(buffer.failed);
    buffer_close(&buffer);
}
END_TEST

START_TEST(failure_sticks)
{
    struct buffer buffer;
    buffer_init(&buffer, 8);
    buffer_text(&buffer, "too long for it");
    ck_assert(buffer.failed);
    buffer_text(&buffer, "x");
    ck_assert_ptr_null(buffer_reserve(&buffer, 1));
    ck_assert_uint_eq(buffer.length, 0);
    buffer_format(&buffer, "%d", 1);
    ck_assert_uint_eq(buffer.length, 0);
    buffer_close(&buffer);
}
END_TEST

START_TEST(huge_reservations_do_not_wrap)
{
    struct buffer buffer;
    buffer_init(&buffer, SIZE_MAX);
    buffer_text(&buffer, "x");
    ck_assert_ptr_null(buffer_reserve(&buffer, SIZE_MAX));
    ck_assert(buffer.failed);
    ck_assert_mem_eq(buffer.data, "x", 1);
    buffer_close(&buffer);
}
END_TEST

START_TEST(reserved_bytes_count_when_added)
{
    struct buffer buffer;
    buffer_init(&buffer, 100);
    char *place = buffer_reserve(&buffer, 10);
    ck_assert_ptr_nonnull(place);
    memcpy(place, "abc", 3);
    buffer.length += 3;
    buffer_text(&buffer, "d");
    ck_assert_uint_eq(buffer.length, 4);
    ck_assert_mem_eq(buffer.data, "abcd", 4);
    buffer_close(&buffer);
}
END_TEST

START_TEST(steal_hands_over_and_empties)
{
    struct buffer buffer;
    buffer_init(&buffer, 100);
    buffer_text(&buffer, "bytes");
    size_t length;
    char *bytes = buffer_steal(&buffer, &length);
    ck_assert_uint_eq(length, 5);
    ck_assert_mem_eq(bytes, "bytes", 5);
    free(bytes);
    ck_assert_uint_eq(buffer.length, 0);
    buffer_text(&buffer, "again");
    ck_assert_uint_eq(buffer.length, 5);
    buffer_close(&buffer);
}
END_TEST

START_TEST(steal_of_nothing_or_failure_is_null)
{
    struct buffer buffer;
    size_t length = 1;
    buffer_init(&buffer, 4);
    ck_assert_ptr_null(buffer_steal(&buffer, &length));
    ck_assert_uint_eq(length, 0);
    buffer_text(&buffer, "abc");
    buffer_text(&buffer, "de");
    ck_assert_ptr_null(buffer_steal(&buffer, &length));
    ck_assert_uint_eq(length, 0);
    buffer_text(&buffer, "ok");
    ck_assert_uint_eq(buffer.length, 2);
    buffer_close(&buffer);
}
END_TEST

RUN_TESTS("proto/buffer", appends_in_order, grows_past_many_doublings, fills_exactly_to_the_limit,
          failure_sticks, huge_reservations_do_not_wrap, reserved_bytes_count_when_added,
          steal_hands_over_and_empties, steal_of_nothing_or_failure_is_null)

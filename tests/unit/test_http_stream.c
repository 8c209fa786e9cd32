/* Answers in parts, from a test handler whose bytes each encode their position. */
#include <sys/resource.h>

#include "test_http_stream_support.h"

/* --- the way of an answer -------------------------------------------------------------------- */

/* The header, each part and the end arrive as they are written, not when something follows. */
START_TEST(parts_arrive_as_they_are_written)
{
    start_streaming(3 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    uint64_t fastest = UINT64_MAX;
    WAIT_FOR((take_some(&reader), header_length(&reader) > 0));
    buffer_append(&reader.raw, "", 1);
    reader.raw.length--;
    ck_assert_ptr_nonnull(strstr(reader.raw.data, "Transfer-Encoding: chunked\r\n"));
    ck_assert_ptr_nonnull(strstr(reader.raw.data, "Content-Type: text/plain\r\n"));
    ck_assert_ptr_nonnull(strstr(reader.raw.data, "X-Kind: stream\r\n"));
    for (size_t i = 1; i <= 3; i++) {
        uint64_t began = uv_hrtime();
        ck_assert(write_piece(&sources[0]));
        WAIT_FOR(has_body(&reader, i * PIECE));
        uint64_t took = uv_hrtime() - began;
        fastest = took < fastest ? took : fastest;
    }
    ck_assert_uint_lt(fastest, 100 * 1000000ull); /* not corked, which takes 200 ms */
    ck_assert(!has_ended(&reader));
    end_source(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    WAIT_FOR(finished.count == 1);
    ck_assert_int_eq(200, finished.status);
    ck_assert_str_eq("", finished.error);
    ck_assert_uint_eq(0, sources[0].gone);
    send_text(reader.client, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"); /* the connection goes on */
    expect_status(reader.client, 200);
    close_reader(&reader);
}
END_TEST

START_TEST(the_loop_sleeps_between_parts)
{
    start_streaming(PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR((take_some(&reader), header_length(&reader) > 0));
    WAIT_FOR(uv_backend_timeout(&loop) != 0);
    ck_assert(write_piece(&sources[0]));
    WAIT_FOR(has_body(&reader, PIECE));
    WAIT_FOR(uv_backend_timeout(&loop) != 0);
    end_source(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    WAIT_FOR(uv_backend_timeout(&loop) != 0);
    close_reader(&reader);
}
END_TEST

/* An answer may begin in the handler, one loop turn later, or once the connection is suspended. */
START_TEST(an_answer_may_begin_later)
{
    start_streaming(PIECE);
    struct reader reader = new_reader("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(pending_count == 1);
    if (_i > 0)
        wait_ms(50);
    pending_count = 0;
    begin_stream(pending[0]);
    write_all(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    ck_assert_uint_eq(PIECE, reader.body);
    close_reader(&reader);
}
END_TEST

START_TEST(http_1_0_gets_it_without_chunks)
{
    start_streaming(20 * PIECE);
    struct reader reader = new_reader("GET /all HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    WAIT_FOR((take_some(&reader), reader.client->closed));
    size_t at = header_length(&reader);
    ck_assert_ptr_null(memmem(reader.raw.data, at, "chunked", 7));
    ck_assert_uint_eq(20 * PIECE, reader.raw.length - at);
    for (size_t i = 0; i < 20 * PIECE; i++)
        ck_assert_int_eq(byte_at(i), reader.raw.data[at + i]);
    close_reader(&reader);
}
END_TEST

/* The handler of a HEAD learns at once that nobody wants the body, even if its answer takes
 * long. */
START_TEST(head_gets_the_header_alone)
{
    static const char *const heads[] = {"HEAD /parts HTTP/1.1\r\nHost: x\r\n\r\n",
                                        "HEAD /all HTTP/1.1\r\nHost: x\r\n\r\n"};
    start_streaming(PIECE);
    for (size_t i = 0; i < 2; i++) {
        struct reader reader = new_reader(heads[i]);
        WAIT_FOR((take_some(&reader), reader.client->closed)); /* no last chunk is left to send */
        ck_assert_uint_eq(header_length(&reader), reader.raw.length);
        WAIT_FOR(finished.count == i + 1);
        ck_assert_int_eq(200, finished.status);
        ck_assert_str_eq("", finished.error);
        close_reader(&reader);
    }
    ck_assert_uint_eq(1, sources[0].gone); /* the other had written all at once */
}
END_TEST

/* --- back-pressure --------------------------------------------------------------------------- */

START_TEST(a_slow_reader_makes_the_handler_wait)
{
    enum { TOTAL = 16 << 20 };
    start_streaming(TOTAL);
    struct reader reader = new_reader(GET_ALL);
    WAIT_FOR(source_count == 1);
    size_t stuck_at; /* what the sockets hold, and one buffer */
    do {
        stuck_at = sources[0].written;
        wait_ms(300);
    } while (stuck_at != sources[0].written);
    ck_assert_ptr_nonnull(sources[0].exchange);
    ck_assert_uint_ge(sources[0].refused, 1);
    ck_assert_uint_lt(stuck_at, TOTAL);
    WAIT_FOR(has_ended(&reader));
    ck_assert_uint_eq(TOTAL, reader.body);
    ck_assert_uint_ge(sources[0].resumed, 1);
    ck_assert_uint_eq(sources[0].refused, sources[0].resumed);
    close_reader(&reader);
}
END_TEST

START_TEST(a_reader_that_takes_nothing_is_cut)
{
    options.idle_timeout_ms = 300;
    start_streaming(64 << 20);
    struct reader reader = new_reader(GET_ALL);
    WAIT_FOR(sources[0].gone == 1);
    WAIT_FOR(http_connections(http) == 0);
    WAIT_FOR(finished.count == 1);
    ck_assert_str_eq("the client was gone before the answer ended", finished.error);
    close_reader(&reader);
}
END_TEST

/* The timeout is for slow clients: here the client has nothing to read. */
START_TEST(a_handler_may_take_its_time)
{
    options.idle_timeout_ms = 200;
    start_streaming(2 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR(source_count == 1);
    for (size_t i = 1; i <= 2; i++) {
        wait_ms(600);
        ck_assert(write_piece(&sources[0]));
        WAIT_FOR(has_body(&reader, i * PIECE));
    }
    end_source(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    close_reader(&reader);
}
END_TEST

static bool all_have_ended(struct reader *readers, int count)
{
    bool ended = true;
    for (int i = 0; i < count; i++)
        ended &= has_ended(&readers[i]);
    return ended;
}

START_TEST(five_hundred_readers_at_once)
{
    enum { READERS = 500, TOTAL = 40 * PIECE };
    static struct reader readers[READERS];
    struct rlimit files = {4096, 4096};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    ck_assert_int_eq(0, setrlimit(RLIMIT_NOFILE, &files));
    max_connections = READERS;
    start_streaming(TOTAL);
    for (int i = 0; i < READERS; i++)
        readers[i] = new_reader(GET_ALL);
    WAIT_FOR(source_count == READERS);
    WAIT_FOR(all_have_ended(readers, READERS));
    for (int i = 0; i < READERS; i++)
        ck_assert_uint_eq(TOTAL, readers[i].body);
    WAIT_FOR(finished.count == READERS);
    for (int i = 0; i < READERS; i++)
        close_reader(&readers[i]);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_test(tests, parts_arrive_as_they_are_written);
    tcase_add_test(tests, the_loop_sleeps_between_parts);
    tcase_add_loop_test(tests, an_answer_may_begin_later, 0, 2);
    tcase_add_test(tests, http_1_0_gets_it_without_chunks);
    tcase_add_test(tests, head_gets_the_header_alone);
    tcase_add_test(tests, a_slow_reader_makes_the_handler_wait);
    tcase_add_test(tests, a_reader_that_takes_nothing_is_cut);
    tcase_add_test(tests, a_handler_may_take_its_time);
    tcase_add_test(tests, five_hundred_readers_at_once);
    return http_tests_run("http_stream", tests);
}

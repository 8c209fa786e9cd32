/* Answers in parts that end before their end: clients that vanish, handlers that give up, drains.
 */
#include "test_http_stream_support.h"

/* --- clients that vanish --------------------------------------------------------------------- */

enum vanishing { CLOSES, RESETS, VANISHINGS };

static void vanish(struct reader *reader, enum vanishing how)
{
    struct linger reset = {1, 0};
    if (how == RESETS)
        setsockopt(reader->client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_reader(reader);
}

/* Long before the time for which a client may take nothing; on an idle machine within a second. */
static void expect_cancelled_soon(void)
{
    uint64_t began = uv_hrtime();
    WAIT_FOR(sources[0].gone == 1 && finished.count == 1);
    ck_assert_uint_lt(uv_hrtime() - began, PATIENCE_MS / 2 * 1000000ull);
    WAIT_FOR(http_connections(http) == 0);
    ck_assert_str_eq("the client was gone before the answer ended", finished.error);
}

/* Meanwhile nothing is written, and libmicrohttpd does not look at the connection. */
START_TEST(a_reader_that_vanishes_between_parts_is_noticed)
{
    start_streaming(4 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR(source_count == 1);
    ck_assert(write_piece(&sources[0]));
    WAIT_FOR(has_body(&reader, PIECE));
    wait_ms(50);
    vanish(&reader, (enum vanishing)_i);
    expect_cancelled_soon();
}
END_TEST

START_TEST(a_reader_that_vanishes_with_bytes_on_the_way_is_noticed)
{
    start_streaming(64 << 20);
    struct reader reader = new_reader(GET_ALL);
    WAIT_FOR(source_count == 1);
    wait_ms(200);
    vanish(&reader, (enum vanishing)_i);
    expect_cancelled_soon();
}
END_TEST

/* nc -N: a client that will send no more, and reads. The probes are part of chunk sizes. */
START_TEST(a_half_close_does_not_end_an_answer)
{
    start_streaming(2 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR(source_count == 1);
    shutdown(reader.client->fd, SHUT_WR);
    for (size_t i = 1; i <= 2; i++) {
        wait_ms(1300);
        ck_assert(write_piece(&sources[0]));
        WAIT_FOR(has_body(&reader, i * PIECE));
    }
    wait_ms(300);
    end_source(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    ck_assert_uint_eq(0, sources[0].gone);
    close_reader(&reader);
}
END_TEST

/* --- ends before the end --------------------------------------------------------------------- */

START_TEST(an_aborted_answer_has_no_last_chunk)
{
    struct error err = ERROR_INIT;
    start_streaming(3 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR(source_count == 1);
    ck_assert(write_piece(&sources[0]));
    WAIT_FOR(has_body(&reader, PIECE));
    if (_i == 1)
        ck_assert(write_piece(&sources[0])); /* on its way */
    error_set(&err, ERROR_INTERNAL, "the model broke");
    exchange_abort(sources[0].exchange, &err);
    WAIT_FOR((take_some(&reader), reader.client->closed));
    ck_assert(!has_ended(&reader));
    WAIT_FOR(finished.count == 1);
    ck_assert_str_eq("the model broke", finished.error);
    ck_assert_uint_eq(0, sources[0].gone);
    WAIT_FOR(http_connections(http) == 0);
    close_reader(&reader);
}
END_TEST

/* A drain waits until the handler has written everything. */
START_TEST(draining_waits_for_the_end)
{
    start_streaming(2 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR(source_count == 1);
    ck_assert(write_piece(&sources[0]));
    http_drain(http, 0, PATIENCE_MS, on_drained, &loop);
    wait_ms(400);
    ck_assert(!drained);
    ck_assert(write_piece(&sources[0]));
    end_source(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    WAIT_FOR(drained);
    close_reader(&reader);
}
END_TEST

/* A drain does not wait for a client that reads nothing. */
START_TEST(a_stuck_reader_does_not_hold_draining_up)
{
    enum { DRAIN_MS = 1000 };
    start_streaming(64 << 20);
    struct reader reader = new_reader(GET_ALL);
    WAIT_FOR(source_count == 1);
    wait_ms(200);
    uint64_t began = uv_hrtime();
    http_drain(http, 0, DRAIN_MS, on_drained, &loop);
    WAIT_FOR(drained);
    ck_assert_uint_lt(uv_hrtime() - began, PATIENCE_MS / 2 * 1000000ull);
    ck_assert_uint_eq(1, sources[0].gone);
    close_reader(&reader);
}
END_TEST

static void count_lost(const struct exchange *exchange, void *context)
{
    (void)exchange;
    ++*(int *)context;
}

/* An answer that has not ended when the drain is over is lost, and is reported as lost. */
START_TEST(an_endless_answer_is_lost)
{
    int told = 0;
    start_streaming(2 * PIECE);
    struct reader reader = new_reader(GET_PARTS);
    WAIT_FOR(source_count == 1);
    wait_ms(50);
    http_drain(http, 0, 200, on_drained, &loop);
    wait_ms(300);
    ck_assert(!drained);
    ck_assert_uint_eq(1, http_drain_end(http, count_lost, &told));
    ck_assert_int_eq(1, told);
    end_source(&sources[0]);
    WAIT_FOR(has_ended(&reader));
    close_reader(&reader);
    WAIT_FOR(http_connections(http) == 0);
    on_drained(&loop);
}
END_TEST

int main(void)
{
    TCase *tests = http_tests_new();
    tcase_add_loop_test(tests, a_reader_that_vanishes_between_parts_is_noticed, 0, VANISHINGS);
    tcase_add_loop_test(tests, a_reader_that_vanishes_with_bytes_on_the_way_is_noticed, 0,
                        VANISHINGS);
    tcase_add_test(tests, a_half_close_does_not_end_an_answer);
    tcase_add_loop_test(tests, an_aborted_answer_has_no_last_chunk, 0, 2);
    tcase_add_test(tests, draining_waits_for_the_end);
    tcase_add_test(tests, a_stuck_reader_does_not_hold_draining_up);
    tcase_add_test(tests, an_endless_answer_is_lost);
    return http_tests_run("http_stream_ends", tests);
}

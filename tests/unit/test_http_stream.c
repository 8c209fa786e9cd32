/* Answers in parts, from a test handler whose bytes each encode their position. */
#include <sys/resource.h>

#include "test_http_support.h"

enum { PIECE = 10000, STREAMS_MAX = 600 };

/* One answer in parts and its progress. */
struct source {
    struct exchange *exchange; /* NULL once it was ended */
    size_t written, total;     /* written on until total; then ended */
    unsigned refused, resumed, gone;
};

static struct source sources[STREAMS_MAX];
static size_t source_count;

static char byte_at(size_t position)
{
    return (char)('a' + position % 23);
}

/* Writes one piece; false if it was refused or the answer has ended. */
static bool write_piece(struct source *source)
{
    char piece[PIECE];
    size_t left = source->total - source->written;
    size_t length = left < sizeof piece ? left : sizeof piece;
    for (size_t i = 0; i < length; i++)
        piece[i] = byte_at(source->written + i);
    if (!exchange_write(source->exchange, piece, length)) {
        source->refused++;
        return false;
    }
    source->written += length;
    return true;
}

static void end_source(struct source *source)
{
    struct exchange *exchange = source->exchange;
    source->exchange = NULL;
    exchange_end(exchange);
}

/* Writes as much as is accepted, and the end. */
static void write_all(struct source *source)
{
    while (source->written < source->total)
        if (!write_piece(source))
            return;
    end_source(source);
}

static void on_writable(struct exchange *exchange)
{
    struct source *source = exchange->owner;
    source->resumed++;
    write_all(source);
}

static void on_gone(struct exchange *exchange)
{
    struct source *source = exchange->owner;
    source->gone++;
    end_source(source);
}

/* /parts: the test writes; /all?: the handler writes its `total` at once. */
static size_t total_to_write;

static void begin_stream(struct exchange *exchange)
{
    ck_assert_uint_lt(source_count, STREAMS_MAX);
    struct source *source = &sources[source_count++];
    *source = (struct source){.exchange = exchange, .total = total_to_write};
    exchange->owner = source;
    exchange->on_disconnect = on_gone;
    exchange->on_writable = on_writable;
    exchange_header(exchange, "X-Kind", "stream");
    exchange_begin(exchange, 200, "text/plain");
    if (!strcmp(exchange->path, "/all"))
        write_all(source);
}

static void start_streaming(size_t total)
{
    total_to_write = total;
    on_other_request = begin_stream;
    start();
}

/* --- a client that reads parts --------------------------------------------------------------- */

struct reader {
    struct client *client;
    struct buffer raw;
    size_t at;   /* of the chunk that comes next; 0: the header is not whole */
    size_t body; /* bytes of the chunks before it */
    bool ended;  /* the last chunk has come */
};

static struct reader new_reader(const char *request)
{
    struct reader reader = {.client = connect_client()};
    buffer_init(&reader.raw, 64 << 20);
    send_text(reader.client, request);
    return reader;
}

static void close_reader(struct reader *reader)
{
    disconnect_client(reader->client);
    buffer_close(&reader->raw);
}

static void take_some(struct reader *reader)
{
    receive(reader->client);
    buffer_append(&reader->raw, reader->client->in, reader->client->length);
    reader->client->length = 0;
}

static size_t header_length(const struct reader *reader)
{
    const char *end =
        reader->raw.length ? memmem(reader->raw.data, reader->raw.length, "\r\n\r\n", 4) : NULL;
    return end ? (size_t)(end + 4 - reader->raw.data) : 0;
}

/* Checks the chunks that have arrived whole. */
static void read_chunks(struct reader *reader)
{
    reader->at = reader->at ? reader->at : header_length(reader);
    while (reader->raw.data && reader->at > 0 && reader->at < reader->raw.length) {
        const char *line = reader->raw.data + reader->at;
        const char *line_end = memmem(line, reader->raw.length - reader->at, "\r\n", 2);
        size_t size = line_end ? strtoul(line, NULL, 16) : 0;
        size_t end = line_end ? (size_t)(line_end - reader->raw.data) + size + 4 : SIZE_MAX;
        if (end > reader->raw.length)
            return;
        for (size_t i = 0; i < size; i++)
            if (byte_at(reader->body++) != line_end[2 + i])
                ck_abort_msg("byte %zu is wrong", reader->body - 1);
        ck_assert_mem_eq("\r\n", line_end + 2 + size, 2);
        reader->at = end;
        reader->ended = size == 0;
        ck_assert(!reader->ended || end == reader->raw.length);
    }
}

static bool has_body(struct reader *reader, size_t bytes)
{
    take_some(reader);
    read_chunks(reader);
    return reader->body >= bytes;
}

static bool has_ended(struct reader *reader)
{
    has_body(reader, 0);
    return reader->ended;
}

static const char GET_PARTS[] = "GET /parts HTTP/1.1\r\nHost: x\r\n\r\n";
static const char GET_ALL[] = "GET /all HTTP/1.1\r\nHost: x\r\n\r\n";

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
    start_streaming(PIECE);
    struct reader reader = new_reader("HEAD /parts HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR((take_some(&reader), header_length(&reader) > 0));
    WAIT_FOR(finished.count == 1);
    ck_assert_uint_eq(1, sources[0].gone);
    ck_assert_int_eq(200, finished.status);
    ck_assert_str_eq("", finished.error);
    send_text(reader.client, "HEAD /all HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(finished.count == 2);
    send_text(reader.client, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    WAIT_FOR(finished.count == 3);
    close_reader(&reader);
}
END_TEST

/* --- back-pressure --------------------------------------------------------------------------- */

START_TEST(a_slow_reader_makes_the_handler_wait)
{
    enum { TOTAL = 16 << 20 };
    start_streaming(TOTAL);
    struct reader reader = new_reader(GET_ALL);
    WAIT_FOR(source_count == 1);
    wait_ms(300);
    ck_assert_ptr_nonnull(sources[0].exchange);
    ck_assert_uint_ge(sources[0].refused, 1);
    size_t stuck_at = sources[0].written; /* what the sockets hold, and one buffer */
    ck_assert_uint_lt(stuck_at, TOTAL);
    wait_ms(200);
    ck_assert_uint_eq(stuck_at, sources[0].written);
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

/* --- clients that vanish --------------------------------------------------------------------- */

enum vanishing { CLOSES, RESETS, VANISHINGS };

static void vanish(struct reader *reader, enum vanishing how)
{
    struct linger reset = {1, 0};
    if (how == RESETS)
        setsockopt(reader->client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close_reader(reader);
}

static void expect_cancelled_within_a_second(void)
{
    uint64_t began = uv_hrtime();
    WAIT_FOR(sources[0].gone == 1 && finished.count == 1);
    ck_assert_uint_lt(uv_hrtime() - began, 1000 * 1000000ull);
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
    expect_cancelled_within_a_second();
}
END_TEST

START_TEST(a_reader_that_vanishes_with_bytes_on_the_way_is_noticed)
{
    start_streaming(64 << 20);
    struct reader reader = new_reader(GET_ALL);
    WAIT_FOR(source_count == 1);
    wait_ms(200);
    vanish(&reader, (enum vanishing)_i);
    expect_cancelled_within_a_second();
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
    ck_assert_uint_lt(uv_hrtime() - began, 1200 * 1000000ull);
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
    tcase_add_test(tests, parts_arrive_as_they_are_written);
    tcase_add_test(tests, the_loop_sleeps_between_parts);
    tcase_add_loop_test(tests, an_answer_may_begin_later, 0, 2);
    tcase_add_test(tests, http_1_0_gets_it_without_chunks);
    tcase_add_test(tests, head_gets_the_header_alone);
    tcase_add_test(tests, a_slow_reader_makes_the_handler_wait);
    tcase_add_test(tests, a_reader_that_takes_nothing_is_cut);
    tcase_add_test(tests, a_handler_may_take_its_time);
    tcase_add_test(tests, five_hundred_readers_at_once);
    tcase_add_loop_test(tests, a_reader_that_vanishes_between_parts_is_noticed, 0, VANISHINGS);
    tcase_add_loop_test(tests, a_reader_that_vanishes_with_bytes_on_the_way_is_noticed, 0,
                        VANISHINGS);
    tcase_add_test(tests, a_half_close_does_not_end_an_answer);
    tcase_add_loop_test(tests, an_aborted_answer_has_no_last_chunk, 0, 2);
    tcase_add_test(tests, draining_waits_for_the_end);
    tcase_add_test(tests, a_stuck_reader_does_not_hold_draining_up);
    tcase_add_test(tests, an_endless_answer_is_lost);
    return http_tests_run("http_stream", tests);
}

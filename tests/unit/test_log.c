/* Log lines on standard error, byte for byte, whatever a client puts into a value. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/access_log.h"
#include "server/http/http.h"
#include "server/log.h"
#include "server/statistics/totals.h"

/* Standard error goes to a file while a test runs; log writes are read back from it. */
static FILE *captured;
static int real_stderr;

static void capture_begin(void)
{
    captured = tmpfile();
    ck_assert_ptr_nonnull(captured);
    ck_assert_int_eq(0, fcntl(fileno(captured), F_SETFL, O_APPEND));
    real_stderr = dup(STDERR_FILENO);
    dup2(fileno(captured), STDERR_FILENO);
    log_set_level(LOG_INFO);
}

static void capture_end(void)
{
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    fclose(captured);
}

/* Everything logged since the test began; a static buffer. */
static const char *logged(void)
{
    static char text[1 << 20];
    rewind(captured);
    text[fread(text, 1, sizeof text - 1, captured)] = '\0';
    return text;
}

/* Logs one value and returns its line, from the key on. */
static const char *logged_value(const char *value)
{
    struct log_line line;
    log_begin(&line, LOG_INFO, "test");
    log_text(&line, "key", value);
    log_end(&line);
    const char *at = strstr(logged(), "key=");
    ck_assert_ptr_nonnull(at);
    return at;
}

START_TEST(a_line_has_time_level_event_and_pairs)
{
    struct log_line line;
    log_begin(&line, LOG_WARNING, "request");
    log_text(&line, "path", "/v2/models/m/infer");
    log_number(&line, "status", 200);
    log_milliseconds(&line, "duration_ms", 1234567);
    log_end(&line);
    const char *text = logged();
    int year, month, day, hour, minute, second, millisecond, consumed = 0;
    ck_assert_int_eq(7, sscanf(text, "time=%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day,
                               &hour, &minute, &second, &millisecond, &consumed));
    ck_assert_int_eq(29, consumed);
    ck_assert_str_eq(text + consumed, " level=warning event=request path=/v2/models/m/infer"
                                      " status=200 duration_ms=1.234\n");
}
END_TEST

static const struct {
    const char *value, *line;
} escapes[] = {
    {"plain", "key=plain\n"},
    {"", "key=\"\"\n"},
    {"two words", "key=\"two words\"\n"},
    {"a=b", "key=\"a=b\"\n"},
    {"say \"hi\"\\", "key=\"say \\\"hi\\\"\\\\\"\n"},
    {"line\r\nlevel=error\tx", "key=\"line\\r\\nlevel=error\\tx\"\n"},
    {"\x1b[31mred\x7f", "key=\"\\x1b[31mred\\x7f\"\n"},
    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
     "key=\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"\n"},
    {"\xc2\x9b"
     "31m",
     "key=\"\\xc2\\x9b31m\"\n"},                            /* C1: the one-byte CSI */
    {"a\xe2\x80\xae.", "key=\"a\\xe2\\x80\\xae.\"\n"},      /* from right to left */
    {"\xff\xfe", "key=\"\\xff\\xfe\"\n"},                   /* never UTF-8 */
    {"\xc0\xaf", "key=\"\\xc0\\xaf\"\n"},                   /* overlong */
    {"\xe0\x80\xaf", "key=\"\\xe0\\x80\\xaf\"\n"},          /* overlong */
    {"\xed\xa0\x80", "key=\"\\xed\\xa0\\x80\"\n"},          /* surrogate */
    {"\xf4\x90\x80\x80", "key=\"\\xf4\\x90\\x80\\x80\"\n"}, /* above U+10FFFF */
    {"cut \xe2\x82", "key=\"cut \\xe2\\x82\"\n"},           /* sequence ends with the string */
};

START_TEST(a_value_is_escaped)
{
    ck_assert_str_eq(escapes[_i].line, logged_value(escapes[_i].value));
}
END_TEST

static const struct {
    const char *value, *json;
} json_escapes[] = {
    {"plain", "\"plain\""},
    {"", "\"\""},
    {"say \"hi\"\\\n", "\"say \\\"hi\\\"\\\\\\n\""},
    {"\x1b[31m", "\"\\u001b[31m\""},
    {"\xc2\x9b", "\"\\u009b\""},
    {"\xe2\x80\xa8\xd8\x9c\xe2\x81\xa9", "\"\\u2028\\u061c\\u2069\""},
    {"\xff\xc3\xbc", "\"\xef\xbf\xbd\xc3\xbc\""},
};

START_TEST(a_line_is_one_json_object)
{
    struct log_line line;
    log_set_format(LOG_JSON);
    log_begin(&line, LOG_WARNING, "request");
    log_text(&line, "key", json_escapes[_i].value);
    log_number(&line, "status", 200);
    log_milliseconds(&line, "ms", 1234567);
    log_end(&line);
    log_set_format(LOG_LOGFMT);
    const char *text = logged();
    ck_assert_int_eq(strncmp(text, "{\"time\":\"20", 11), 0);
    char expected[200];
    snprintf(expected, sizeof expected,
             "Z\",\"level\":\"warning\",\"event\":\"request\",\"key\":%s,\"status\":200,"
             "\"ms\":1.234}\n",
             json_escapes[_i].json);
    ck_assert_str_eq(strchr(text, 'Z'), expected);
}
END_TEST

START_TEST(a_full_json_line_ends)
{
    char value[500];
    memset(value, '\x01', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    struct log_line line;
    log_set_format(LOG_JSON);
    log_begin(&line, LOG_INFO, "test");
    for (int i = 0; i < 20; i++)
        log_text(&line, "key", value);
    log_end(&line);
    log_listening("http://127.0.0.1:1");
    log_set_format(LOG_LOGFMT);
    const char *end = strstr(logged(), "...\"}\n{\"time\":");
    ck_assert_ptr_nonnull(end);
    ck_assert_ptr_nonnull(strstr(end, "\"event\":\"listening\",\"url\":\"http://127.0.0.1:1\"}\n"));
    log_listening("http://127.0.0.1:2");
    ck_assert_ptr_nonnull(strstr(logged(), "}\nlistening on http://127.0.0.1:2\n"));
}
END_TEST

START_TEST(a_long_value_is_cut_and_later_pairs_survive)
{
    char value[9000];
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    struct log_line line;
    log_begin(&line, LOG_INFO, "request");
    log_text(&line, "path", value);
    log_number(&line, "status", 404);
    log_end(&line);
    const char *text = logged();
    ck_assert_ptr_nonnull(strstr(text, "xxx...\" status=404\n"));
    ck_assert_uint_lt(strlen(text), 700);
}
END_TEST

START_TEST(pairs_that_do_not_fit_are_dropped_whole)
{
    char value[500];
    memset(value, '\x01', sizeof value - 1); /* four bytes each once escaped */
    value[sizeof value - 1] = '\0';
    struct log_line line;
    log_begin(&line, LOG_INFO, "test");
    for (int i = 0; i < 20; i++)
        log_text(&line, "key", value);
    log_end(&line);
    const char *text = logged();
    size_t length = strlen(text);
    ck_assert_uint_le(length, sizeof line.text);
    ck_assert_ptr_eq(strchr(text, '\n'), text + length - 1);
    ck_assert_int_eq('"', text[length - 2]);
}
END_TEST

START_TEST(the_level_decides_what_is_written)
{
    ck_assert(log_enabled(LOG_INFO));
    ck_assert(!log_enabled(LOG_DEBUG));
    log_message(LOG_DEBUG, "hidden", "not seen");
    struct log_line line;
    log_begin(&line, LOG_DEBUG, "hidden");
    log_text(&line, "key", "value with spaces");
    log_number(&line, "n", 1);
    log_end(&line);
    ck_assert_str_eq("", logged());
    log_set_level(LOG_DEBUG);
    log_message(LOG_DEBUG, "seen", "%d of %s", 3, "five");
    ck_assert_ptr_nonnull(strstr(logged(), "level=debug event=seen message=\"3 of five\"\n"));
}
END_TEST

START_TEST(level_names)
{
    ck_assert_int_eq(LOG_ERROR, log_level_from_name("error"));
    ck_assert_int_eq(LOG_WARNING, log_level_from_name("warning"));
    ck_assert_int_eq(LOG_INFO, log_level_from_name("info"));
    ck_assert_int_eq(LOG_DEBUG, log_level_from_name("debug"));
    ck_assert_int_eq(LOG_LEVEL_COUNT, log_level_from_name("INFO"));
    ck_assert_int_eq(LOG_LEVEL_COUNT, log_level_from_name(""));
}
END_TEST

enum { THREADS = 4, LINES = 500 };

static void *log_many(void *name)
{
    for (int i = 0; i < LINES; i++)
        log_message(LOG_INFO, name, "abcdefghij %d klmnopqrst", i);
    return NULL;
}

static void log_four_times(void)
{
    static char names[THREADS][16];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        ck_assert_int_eq(0, pthread_create(&threads[i], NULL, log_many, names[i]));
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void expect_all_lines(void)
{
    int lines = 0;
    for (const char *at = logged(); *at; at = strchr(at, '\n') + 1, lines++) {
        ck_assert_int_eq(0, strncmp(at, "time=", 5));
        const char *tail = strstr(at, " klmnopqrst\"\n");
        ck_assert_ptr_nonnull(tail);
        ck_assert_ptr_eq(strchr(at, '\n'), tail + strlen(" klmnopqrst\""));
    }
    ck_assert_int_eq(THREADS * LINES, lines);
}

START_TEST(lines_of_several_threads_do_not_mix)
{
    log_four_times();
    expect_all_lines();
}
END_TEST

START_TEST(lines_of_several_threads_reach_the_writer_whole)
{
    struct error err = ERROR_INIT;
    ck_assert_int_eq(log_start(&err), 0);
    log_four_times();
    log_stop(20000);
    expect_all_lines();
    ck_assert_uint_eq(log_dropped(), 0);
}
END_TEST

/* Nobody reads the pipe: the writer blocks, and its buffer fills. */
START_TEST(a_full_buffer_keeps_room_for_errors)
{
    struct error err = ERROR_INIT;
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    ck_assert_int_eq(log_start(&err), 0);
    while (log_dropped() < 10)
        log_message(LOG_INFO, "flood", "%0500d", 0);
    const uint64_t dropped = log_dropped();
    log_message(LOG_ERROR, "fault", "something broke");
    ck_assert_uint_eq(log_dropped(), dropped);
    log_message(LOG_INFO, "flood", "%0500d", 0);
    ck_assert_uint_eq(log_dropped(), dropped + 1);
    log_stop(1); /* returns although nobody reads */
}
END_TEST

/* ---- slow requests ---- */

static bool is_slow(const char *protocol, uint64_t queue_ms, uint64_t ms)
{
    struct totals *totals = totals_new(1);
    struct access_log log = {.slow_ns = 5000000000};
    const struct exchange exchange = {.method_text = "POST",
                                      .path = "/",
                                      .status = 200,
                                      .log_protocol = protocol,
                                      .log_queue_ns = queue_ms * 1000000};
    access_log_finished(&log, &exchange, ms * 1000000, totals, 0);
    totals_free(totals);
    const char *line = strstr(logged(), "event=request");
    ck_assert_ptr_nonnull(line);
    const bool slow = strstr(line, "slow=true");
    ck_assert(!strstr(logged(), "level=warning") == !slow);
    ck_assert_int_eq(ftruncate(fileno(captured), 0), 0);
    return slow;
}

START_TEST(a_long_text_is_not_slow)
{
    ck_assert(is_slow("v1", 0, 5001));
    ck_assert(!is_slow("v1", 0, 4999));
    ck_assert(!is_slow("openai", 0, 60000));
    ck_assert(is_slow("openai", 5001, 60000));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("log");
    tcase_add_checked_fixture(tests, capture_begin, capture_end);
    tcase_add_test(tests, a_line_has_time_level_event_and_pairs);
    tcase_add_loop_test(tests, a_value_is_escaped, 0, sizeof escapes / sizeof *escapes);
    tcase_add_loop_test(tests, a_line_is_one_json_object, 0,
                        sizeof json_escapes / sizeof *json_escapes);
    tcase_add_test(tests, a_full_json_line_ends);
    tcase_add_test(tests, a_long_value_is_cut_and_later_pairs_survive);
    tcase_add_test(tests, pairs_that_do_not_fit_are_dropped_whole);
    tcase_add_test(tests, the_level_decides_what_is_written);
    tcase_add_test(tests, level_names);
    tcase_add_test(tests, lines_of_several_threads_do_not_mix);
    tcase_add_test(tests, lines_of_several_threads_reach_the_writer_whole);
    tcase_add_test(tests, a_full_buffer_keeps_room_for_errors);
    tcase_add_test(tests, a_long_text_is_not_slow);
    Suite *suite = suite_create("log");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

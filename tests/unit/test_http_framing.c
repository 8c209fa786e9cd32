/* The rules that make requests out of bytes, each read whole and cut in two at every byte.
 * test_http_refusals.c uses real sockets. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/http_framing.h"

enum { MAX_BODY = 1000, ROOM = 64 << 10 };

/* The outcome of reading some bytes. */
struct outcome {
    unsigned requests; /* that were whole */
    enum error_code code;
    char heads[512]; /* "METHOD PATH|..." of all headers, refused bodies included */
    char body[ROOM]; /* all bodies */
    size_t body_length;
    size_t unused; /* bytes that are waited on */
    struct http_head head;
    struct error err;
};

static void note_head(struct outcome *outcome, const struct http_head *head, const char *bytes)
{
    size_t at = strlen(outcome->heads);
    snprintf(outcome->heads + at, sizeof outcome->heads - at, "%.*s %.*s|",
             (int)head->method_length, bytes, head->path.at ? (int)head->path.length : 1,
             head->path.at ? bytes + head->path.at : "/");
    outcome->head = *head;
}

/* Reads as much as it can; false if something was refused. */
static bool read_on(struct http_framing *framing, const char *bytes, size_t length,
                    struct outcome *outcome)
{
    size_t taken;
    while (true) {
        enum http_part part = http_framing_read(framing, bytes, length, &taken, &outcome->err);
        ck_assert_uint_le(taken, length);
        ck_assert((part == HTTP_REFUSED) == (outcome->err.code != ERROR_NONE));
        if (part == HTTP_REFUSED)
            return false;
        if (part == HTTP_HEADER)
            note_head(outcome, &framing->head, bytes);
        if (part == HTTP_BODY) {
            memcpy(outcome->body + outcome->body_length, bytes, taken);
            outcome->body_length += taken;
        }
        if (part == HTTP_END) {
            outcome->requests++;
            http_framing_init(framing, MAX_BODY);
        }
        bytes += taken, length -= taken;
        outcome->unused = length;
        if (part == HTTP_MORE && taken == 0)
            return true;
    }
}

/* Passes `bytes` in two pieces; unused bytes of the first are passed again with the second. */
static void read_cut(const char *bytes, size_t length, size_t cut, struct outcome *outcome)
{
    struct http_framing framing;
    memset(outcome, 0, sizeof *outcome);
    http_framing_init(&framing, MAX_BODY);
    if (read_on(&framing, bytes, cut, outcome)) {
        size_t from = cut - outcome->unused;
        read_on(&framing, bytes + from, length - from, outcome);
    }
    outcome->code = outcome->err.code;
}

static void read_all(const char *bytes, size_t length, struct outcome *outcome)
{
    static struct outcome other;
    read_cut(bytes, length, length, outcome);
    for (size_t cut = 0; cut < length; cut++) {
        read_cut(bytes, length, cut, &other);
        ck_assert_uint_eq(outcome->requests, other.requests);
        ck_assert_int_eq(outcome->code, other.code);
        ck_assert_str_eq(outcome->heads, other.heads);
        ck_assert_uint_eq(outcome->body_length, other.body_length);
        ck_assert_mem_eq(outcome->body, other.body, other.body_length);
    }
}

static struct outcome got;

#define H       "Host: x\r\n"
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"

static const struct {
    const char *bytes, *heads, *body;
    unsigned requests;
} accepted[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", "GET /|", "", 1},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n\r\n", "GET /|", "", 1},
    {"GET /a%20b?c=d&e?f HTTP/1.1\r\n" H "\r\n", "GET /a%20b|", "", 1},
    {"GET /\xC3\xA4 HTTP/1.1\r\n" H "\r\n", "GET /\xC3\xA4|", "", 1},
    {"GET http://a:80/b?c HTTP/1.1\r\n" H "\r\n", "GET /b|", "", 1},
    {"GET HTTPS://a HTTP/1.1\r\n" H "\r\n", "GET /|", "", 1},
    {"GET http://a?b HTTP/1.1\r\n" H "\r\n", "GET /|", "", 1},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS *|", "", 1},
    {"GET / HTTP/1.0\r\n\r\n", "GET /|", "", 1},
    {"GET / HTTP/1.7\r\n" H "\r\n", "GET /|", "", 1},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET /|", "", 1},
    {"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "GET /|", "", 1},
    {"GET / HTTP/1.1\r\nHost: a_b-c.d:1\r\n\r\n", "GET /|", "", 1},
    {"GET / HTTP/1.1\r\n" H "X: a\tb \xE4\r\n!#$%&'*+-.^_`|~09azAZ: odd\r\nEmpty:\r\n\r\n",
     "GET /|", "", 1},
    {"POST / HTTP/1.1\r\n" H "content-length:3\r\n\r\nabc", "POST /|", "abc", 1},
    {"POST / HTTP/1.1\r\n" H "Content-Length: \t3 \t\r\n\r\nabc", "POST /|", "abc", 1},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0003\r\n\r\nabc", "POST /|", "abc", 1},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "POST /|", "", 1},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked \r\n\r\n0\r\n\r\n", "POST /|", "", 1},
    {CHUNKED "3\r\nabc\r\n00a;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", "POST /|", "abc0123456789", 1},
    {CHUNKED "1\r\na\r\n0;last\r\nX: y\r\nZ:\r\n\r\n", "POST /|", "a", 1},
    {CHUNKED "3E8\r\n", "POST /|", "", 0},
    /* pipelined */
    {"GET /a HTTP/1.1\r\n" H "\r\nPOST /b HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nhi\r\n"
     "GET /c HTTP/1.1\r\n" H "\r\n",
     "GET /a|POST /b|GET /c|", "hi", 3},
    {CHUNKED "1\r\na\r\n0\r\n\r\n" CHUNKED "1\r\nb\r\n0\r\n\r\nGET", "POST /|POST /|", "ab", 2},
    /* not whole yet */
    {"", "", "", 0},
    {"\r", "", "", 0},
    {"GET / HTTP/1.1\r\n" H, "", "", 0},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nab", "POST /|", "ab", 0},
};

START_TEST(bytes_are_accepted)
{
    read_all(accepted[_i].bytes, strlen(accepted[_i].bytes), &got);
    ck_assert_msg(got.code == ERROR_NONE, "%s", got.err.text);
    ck_assert_str_eq(accepted[_i].heads, got.heads);
    ck_assert_uint_eq(accepted[_i].requests, got.requests);
    ck_assert_uint_eq(strlen(accepted[_i].body), got.body_length);
    ck_assert_mem_eq(accepted[_i].body, got.body, got.body_length);
}
END_TEST

static const struct {
    enum error_code code;
    const char *bytes, *words; /* in the error's text */
} refused[] = {
    {ERROR_INVALID, "GARBAGE\r\n\r\n", "METHOD TARGET HTTP/1.1"},
    {ERROR_INVALID, "GARBAGE\r\n", "METHOD TARGET HTTP/1.1"},
    {ERROR_INVALID, "GET /\r\n", "METHOD TARGET HTTP/1.1"},
    {ERROR_INVALID, " GET / HTTP/1.1\r\n", "METHOD"},
    {ERROR_INVALID, "GET  / HTTP/1.1\r\n", ""},
    {ERROR_INVALID, "GET  HTTP/1.1\r\n", "target is empty"},
    {ERROR_INVALID, "GET / HTTP/1.1 \r\n", ""},
    {ERROR_INVALID, "GET /a HTTP/1.1 /b HTTP/1.1\r\n", ""},
    {ERROR_INVALID, "GET /a b HTTP/1.1\r\n", ""},
    {ERROR_INVALID, "GET /a\tb HTTP/1.1\r\n", "tab"},
    {ERROR_INVALID, "G(T / HTTP/1.1\r\n", ""},
    {ERROR_INVALID, "GET a HTTP/1.1\r\n", "begin with '/'"},
    {ERROR_INVALID, "GET http:// HTTP/1.1\r\n", "begin with '/'"},
    {ERROR_INVALID, "GET http:///a HTTP/1.1\r\n", "begin with '/'"},
    {ERROR_INVALID, "GET ftp://a/ HTTP/1.1\r\n", "begin with '/'"},
    {ERROR_INVALID, "CONNECT a:80 HTTP/1.1\r\n", "begin with '/'"},
    {ERROR_INVALID, "GET / http/1.1\r\n", ""},
    {ERROR_INVALID, "GET / HTTP/1.x\r\n", ""},
    {ERROR_INVALID, "GET / HTTP/1.10\r\n", ""},
    {ERROR_VERSION, "GET / HTTP/2.0\r\n", "HTTP/2.0"},
    {ERROR_VERSION, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2.0"},
    {ERROR_VERSION, "GET / HTTP/0.9\r\n", ""},
    /* lines */
    {ERROR_INVALID, "\n", "CRLF"},
    {ERROR_INVALID, "\rG", "CRLF"},
    {ERROR_INVALID, "GET / HTTP/1.1\n", "CRLF"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\r\n", "CRLF"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nHost: x\n", "CRLF"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n" H "\n", "CRLF"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n" H "X: a\rb\r\n", "CRLF"},
    {ERROR_INVALID, "GET /\x7F HTTP/1.1\r\n", "0x7F"},
    {ERROR_INVALID, "\x16\x03\x01", "0x16"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n" H "X: \x01\r\n", "0x01"},
    /* fields */
    {ERROR_INVALID, "GET / HTTP/1.1\r\nno colon\r\n", "NAME: VALUE"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n: x\r\n", "NAME: VALUE"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n" H ":\r\n", "NAME: VALUE"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nHost : x\r\n", "NAME: VALUE"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n" H "X: 1\r\n folded\r\n", "folded"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n" H "X: 1\r\n\t\r\n", "folded"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n Host: x\r\n", "folded"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\n\r\n", "Host"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nHost: x\r\nhost: x\r\n", "more than one Host"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "Host"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "Host"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "Host"},
    {ERROR_INVALID, "GET / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Encoding: identity\r\n",
     "more than one Content-Encoding"},
    {ERROR_INVALID,
     "GET / HTTP/1.1\r\nInference-Header-Content-Length: 1\r\n"
     "inference-header-content-length: 2\r\n",
     "more than one Inference-Header-Content-Length"},
    /* lengths */
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n",
     "more than one Content-Length"},
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\n", "whole number"},
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: 1 1\r\n\r\n", "whole number"},
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\n", "whole number"},
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", "whole number"},
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\n", "whole number"},
    {ERROR_INVALID, "POST / HTTP/1.1\r\n" H "Content-Length: \r\n\r\n", "whole number"},
    {ERROR_TOO_LARGE, "POST / HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n", "1001"},
    {ERROR_TOO_LARGE, "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551617\r\n\r\n", ""},
    {ERROR_INVALID,
     "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "together"},
    {ERROR_INVALID, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"},
    {ERROR_INVALID,
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
     "more than one Transfer-Encoding"},
    {ERROR_UNSUPPORTED, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", ""},
    {ERROR_UNSUPPORTED, "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", ""},
    /* chunks */
    {ERROR_INVALID, CHUNKED "1e;\n", "CRLF"},
    {ERROR_INVALID, CHUNKED "1\n", "CRLF"},
    {ERROR_INVALID, CHUNKED "\r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED "zz\r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED "-1\r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED "0x1\r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED " 1\r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED "1 \r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED ";x\r\n", "chunk size"},
    {ERROR_INVALID, CHUNKED "1;\x01\r\n", "0x01"},
    {ERROR_INVALID, CHUNKED "1\r\nab\r\n", "behind a chunk"},
    {ERROR_INVALID, CHUNKED "1\r\na\n", "behind a chunk"},
    {ERROR_INVALID, CHUNKED "1\r\na\rb", "behind a chunk"},
    {ERROR_TOO_LARGE, CHUNKED "3e9\r\n", "1000"},
    {ERROR_TOO_LARGE, CHUNKED "10000000000000000\r\n", ""},
    {ERROR_TOO_LARGE, CHUNKED "1\r\na\r\n3e8\r\n", "1000"},
    {ERROR_INVALID, CHUNKED "0\r\nX: y\n", "CRLF"},
    {ERROR_INVALID, CHUNKED "0\r\nx\r\n", "NAME: VALUE"},
    {ERROR_INVALID, CHUNKED "0\r\n x: y\r\n", "folded"},
    {ERROR_INVALID, CHUNKED "0\r\nContent-Length: 3\r\n", "behind the body"},
    {ERROR_INVALID, CHUNKED "0\r\nGET /x HTTP/1.1\r\n", "NAME: VALUE"},
};

START_TEST(bytes_are_refused)
{
    read_all(refused[_i].bytes, strlen(refused[_i].bytes), &got);
    ck_assert_msg(got.code == refused[_i].code, "%d: %s", got.code, got.err.text);
    ck_assert_msg(strstr(got.err.text, refused[_i].words) != NULL, "%s", got.err.text);
    ck_assert_uint_eq(0, got.requests);
}
END_TEST

START_TEST(a_nul_is_refused_wherever_it_stands)
{
    static const char request[] = CHUNKED "1;x\r\na\r\n0\r\nX: y\r\n\r\n";
    static const char data[] = CHUNKED "1;x\r\n";
    char bytes[sizeof request];
    for (size_t i = 0; i + 1 < sizeof request; i++) {
        memcpy(bytes, request, sizeof request);
        bytes[i] = '\0';
        read_all(bytes, sizeof request - 1, &got);
        ck_assert_int_eq(i == sizeof data - 1 ? ERROR_NONE : ERROR_INVALID, got.code);
    }
}
END_TEST

START_TEST(good_requests_before_a_bad_one_count)
{
    const char *bytes = "GET /a HTTP/1.1\r\n" H "\r\nGET /b HTTP/1.1\r\n" H "\r\nGET\r\n\r\n";
    read_all(bytes, strlen(bytes), &got);
    ck_assert_int_eq(ERROR_INVALID, got.code);
    ck_assert_uint_eq(2, got.requests);
    ck_assert_str_eq("GET /a|GET /b|", got.heads);
}
END_TEST

/* ---- limits ---- */

/* `before`, filler, and `after`; `length` in all. */
static char *filled(const char *before, const char *after, size_t length)
{
    char *bytes = malloc(length + 1);
    memset(bytes, 'x', length);
    memcpy(bytes, before, strlen(before));
    strcpy(bytes + length - strlen(after), after);
    return bytes;
}

static const struct {
    const char *before, *after;
    size_t longest;
    enum error_code code;
} limits[] = {
    {"GET /", " HTTP/1.1\r\n" H "\r\n", HTTP_HEAD_MAX_BYTES, ERROR_HEADER_TOO_LARGE},
    {"GET / HTTP/1.1\r\n" H "X: ", "\r\n\r\n", HTTP_HEAD_MAX_BYTES, ERROR_HEADER_TOO_LARGE},
    {CHUNKED "1;", "\r\na\r\n0\r\n\r\n", sizeof CHUNKED - 1 + HTTP_CHUNK_LINE_MAX_BYTES + 8,
     ERROR_INVALID},
    {CHUNKED "0\r\nX: ", "\r\n\r\n", sizeof CHUNKED - 1 + 3 + HTTP_TRAILER_MAX_BYTES,
     ERROR_INVALID},
};

START_TEST(what_nobody_reads_is_bounded)
{
    for (size_t more = 0; more < 3; more++) {
        size_t length = limits[_i].longest + more;
        char *bytes = filled(limits[_i].before, limits[_i].after, length);
        read_cut(bytes, length, length, &got);
        ck_assert_msg(got.code == (more ? limits[_i].code : ERROR_NONE), "%s", got.err.text);
        ck_assert_uint_eq(more ? 0 : 1, got.requests);
        read_cut(bytes, length, length / 2, &got);
        ck_assert_int_eq(more ? limits[_i].code : ERROR_NONE, got.code);
        free(bytes);
    }
}
END_TEST

START_TEST(a_line_without_end_is_refused_at_the_limit)
{
    char *bytes = filled("GET /", "", HTTP_HEAD_MAX_BYTES);
    read_cut(bytes, HTTP_HEAD_MAX_BYTES - 1, 100, &got);
    ck_assert_int_eq(ERROR_NONE, got.code);
    read_cut(bytes, HTTP_HEAD_MAX_BYTES, 100, &got);
    ck_assert_int_eq(ERROR_TARGET_TOO_LONG, got.code);
    free(bytes);
}
END_TEST

/* ---- what the header says ---- */

static void read_header(const char *fields)
{
    char bytes[1024];
    snprintf(bytes, sizeof bytes, "POST / HTTP/1.1\r\n" H "%s\r\n", fields);
    read_cut(bytes, strlen(bytes), 0, &got);
    ck_assert_msg(got.code == ERROR_NONE, "%s", got.err.text);
}

START_TEST(connection_is_a_list)
{
    read_header("Connection: upgrade ,\tCLOSE\r\n");
    ck_assert(got.head.wants_close && !got.head.wants_keep_alive);
    read_header("Connection: x\r\nconnection: Keep-Alive,\r\n");
    ck_assert(!got.head.wants_close && got.head.wants_keep_alive);
    read_header("Connection: closed, not-close\r\n");
    ck_assert(!got.head.wants_close);
    read_header("Expect: 100-Continue\r\n");
    ck_assert(got.head.expects_continue);
}
END_TEST

START_TEST(values_are_whole_and_trimmed)
{
    char field[300], zeros[201];
    memset(zeros, '0', sizeof zeros - 1);
    zeros[sizeof zeros - 1] = '\0';
    snprintf(field, sizeof field, "Inference-Header-Content-Length:\t %s17 \r\n", zeros);
    read_header(field);
    ck_assert_uint_eq(202, got.head.fields[HTTP_FIELD_INFERENCE_HEADER_LENGTH].length);
    ck_assert_uint_eq(0, got.head.fields[HTTP_FIELD_CONTENT_ENCODING].at);
}
END_TEST

START_TEST(a_body_may_be_read_past_it)
{
    const char *bytes = "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc";
    struct http_framing framing;
    struct error err = ERROR_INIT;
    size_t taken;
    http_framing_init(&framing, MAX_BODY);
    ck_assert_uint_eq(0, http_framing_body_ahead(&framing));
    ck_assert_int_eq(HTTP_HEADER, http_framing_read(&framing, bytes, strlen(bytes), &taken, &err));
    ck_assert_uint_eq(10, http_framing_body_ahead(&framing));
    ck_assert_int_eq(HTTP_BODY, http_framing_read(&framing, bytes + taken, 3, &taken, &err));
    http_framing_skip_body(&framing, 7);
    ck_assert_int_eq(HTTP_END, http_framing_read(&framing, "G", 1, &taken, &err));
    ck_assert_uint_eq(0, taken);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

int main(void)
{
    TCase *tests = tcase_create("http_framing");
    tcase_add_loop_test(tests, bytes_are_accepted, 0, COUNT(accepted));
    tcase_add_loop_test(tests, bytes_are_refused, 0, COUNT(refused));
    tcase_add_test(tests, a_nul_is_refused_wherever_it_stands);
    tcase_add_test(tests, good_requests_before_a_bad_one_count);
    tcase_add_loop_test(tests, what_nobody_reads_is_bounded, 0, COUNT(limits));
    tcase_add_test(tests, a_line_without_end_is_refused_at_the_limit);
    tcase_add_test(tests, connection_is_a_list);
    tcase_add_test(tests, values_are_whole_and_trimmed);
    tcase_add_test(tests, a_body_may_be_read_past_it);
    Suite *suite = suite_create("http_framing");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The rules of request headers, one by one; test_http.c has them against real sockets. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "server/http_head.h"

enum { MAX_BODY = 1000 };

static struct http_head head;
static struct error err;

static void field(const char *name, const char *value)
{
    http_head_field(&head, name, strlen(name), value, strlen(value));
}

static void begin(const char *version)
{
    err = (struct error)ERROR_INIT;
    http_head_init(&head, version, true);
    field("Host", "x");
}

static enum error_code checked(void)
{
    int result = http_head_check(&head, MAX_BODY, &err);
    ck_assert_int_eq(err.code == ERROR_NONE ? 0 : -1, result);
    return err.code;
}

static const struct {
    enum error_code code;
    const char *version;
    const char *fields[3][2];
} cases[] = {
    {ERROR_NONE, "HTTP/1.1", {{"Accept", "*/*"}}},
    {ERROR_NONE, "HTTP/1.1", {{"content-length", "0"}}},
    {ERROR_NONE, "HTTP/1.1", {{"Content-Length", "1000"}}},
    {ERROR_NONE, "HTTP/1.1", {{"Content-Length", "0001000"}}},
    {ERROR_NONE, "HTTP/1.1", {{"transfer-encoding", "CHUNKED"}}},
    {ERROR_NONE, "HTTP/1.1", {{"!#$%&'*+-.^_`|~09azAZ", "odd but a token"}}},
    {ERROR_TOO_LARGE, "HTTP/1.1", {{"Content-Length", "1001"}}},
    {ERROR_TOO_LARGE, "HTTP/1.1", {{"Content-Length", "18446744073709551614"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Content-Length", "18446744073709551616"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Content-Length", ""}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Content-Length", "0x10"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Content-Length", "1 "}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Content-Length", "1"}, {"Content-Length", "1"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Content-Length", "1"}, {"Transfer-Encoding", "chunked"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Transfer-Encoding", "x"}, {"Content-Length", "1"}}},
    {ERROR_INVALID, "HTTP/1.0", {{"Transfer-Encoding", "chunked"}}},
    {ERROR_UNSUPPORTED, "HTTP/1.1", {{"Transfer-Encoding", "identity"}}},
    {ERROR_UNSUPPORTED, "HTTP/1.1", {{"Transfer-Encoding", ""}}},
    {ERROR_UNSUPPORTED,
     "HTTP/1.1",
     {{"Transfer-Encoding", "chunked"}, {"Transfer-Encoding", "chunked"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Host", "y"}}},
    {ERROR_INVALID, "HTTP/1.0", {{"Host", "y"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"", "x"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Accept ", "x"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"A(b)", "x"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"A\x80", "x"}}},
    {ERROR_INVALID, "HTTP/1.1", {{"Accept", "a\rb"}}},
};

START_TEST(a_header_is_judged)
{
    begin(cases[_i].version);
    for (size_t i = 0; i < 3 && cases[_i].fields[i][0]; i++)
        field(cases[_i].fields[i][0], cases[_i].fields[i][1]);
    ck_assert_int_eq(cases[_i].code, checked());
}
END_TEST

START_TEST(the_host_is_needed_from_http_1_1_on)
{
    err = (struct error)ERROR_INIT;
    http_head_init(&head, "HTTP/1.0", true);
    ck_assert_int_eq(ERROR_NONE, checked());
    http_head_init(&head, "HTTP/1.1", true);
    ck_assert_int_eq(ERROR_INVALID, checked());
}
END_TEST

START_TEST(a_name_may_hold_a_nul_only_to_be_refused)
{
    begin("HTTP/1.1");
    http_head_field(&head, "A\0B", 3, "x", 1);
    ck_assert_int_eq(ERROR_INVALID, checked());
}
END_TEST

START_TEST(what_the_handler_needs_is_kept)
{
    begin("HTTP/1.1");
    field("content-encoding", "gzip");
    field("inference-header-content-length", "17");
    field("Content-Length", "20");
    ck_assert_int_eq(ERROR_NONE, checked());
    ck_assert_str_eq("gzip", head.content_encoding);
    ck_assert_str_eq("17", head.inference_header_length);
    ck_assert_uint_eq(20, head.content_length);
    ck_assert(!head.chunked);
}
END_TEST

START_TEST(targets)
{
    ck_assert(http_head_is_target("/v2/models/a%20b?x=y&z"));
    ck_assert(http_head_is_target("*"));
    ck_assert(!http_head_is_target(""));
    ck_assert(!http_head_is_target("/a b"));
    ck_assert(!http_head_is_target("/a\tb"));
    ck_assert(!http_head_is_target("/a\x7f"));
    ck_assert(http_head_is_target("/\xc3\xa4")); /* routes decide */
    http_head_init(&head, "HTTP/1.0", false);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(ERROR_INVALID, checked());
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("http_head");
    tcase_add_loop_test(tests, a_header_is_judged, 0, sizeof cases / sizeof *cases);
    tcase_add_test(tests, the_host_is_needed_from_http_1_1_on);
    tcase_add_test(tests, a_name_may_hold_a_nul_only_to_be_refused);
    tcase_add_test(tests, what_the_handler_needs_is_kept);
    tcase_add_test(tests, targets);
    Suite *suite = suite_create("http_head");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

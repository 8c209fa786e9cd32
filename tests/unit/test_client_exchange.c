/* The C client against a server of canned answers: what it sends, and what it makes of what comes.
 */
#include <jansson.h>
#include <string.h>

#include "canned.h"

START_TEST(a_request_says_who_asks)
{
    struct moed_client_error err = {0};
    start(HEAD("200 OK") "Content-Length: 2\r\n\r\n{}");
    const struct moed_client_options options = {
        .token = "secret", .tag = "team a", .uncounted = true};
    struct moed_client *client = moed_client_new(canned.url, &options, &err);
    const struct moed_client_routing_query query = {.window = "5m", .tag = "a&b"};
    char *text = moed_client_routing(client, "m", "2", &query, &err);
    ck_assert_msg(text != NULL, "%s", err.text);
    ck_assert_str_eq(text, "{}");
    free(text);
    stop(client);
    was_sent("GET /behind/a/proxy/v2/models/m/versions/2/routing?window=5m&tag=a%26b HTTP/1.1\r\n");
    was_sent("\r\nAuthorization: Bearer secret\r\n");
    was_sent("\r\nMoed-Tag: team a\r\n");
    was_sent("\r\nMoed-Statistics: off\r\n");
}
END_TEST

START_TEST(v1_is_posted_as_it_is)
{
    struct moed_client_error err = {0};
    start(HEAD("200 OK") "Content-Length: 18\r\n\r\n{\"predictions\":[]}");
    struct moed_client *client = moed_client_new(canned.url, NULL, &err);
    char *text = moed_client_predict(client, "m", NULL, "{\"instances\":[[1]]}", &err);
    ck_assert_str_eq(text, "{\"predictions\":[]}");
    free(text);
    stop(client);
    was_sent("POST /behind/a/proxy/v1/models/m:predict HTTP/1.1\r\n");
    was_sent("\r\n\r\n{\"instances\":[[1]]}");
    ck_assert_ptr_null(strstr(canned.request, "Authorization"));
    ck_assert_ptr_null(strstr(canned.request, "Expect"));
}
END_TEST

START_TEST(any_method_with_a_body)
{
    struct moed_client_error err = {0};
    struct moed_client_answer answer;
    char path[] = "/v2/x", body[] = "{\"a\":1}binary";
    start(HEAD("200 OK") "Inference-Header-Content-Length: 3\r\nContent-Length: 5\r\n\r\n{ }ab");
    struct moed_client *client = moed_client_new(canned.url, NULL, &err);
    const struct moed_client_call call = {"DELETE", path, body, sizeof body - 1, 7};
    ck_assert_msg(moed_client_exchange(client, &call, &answer, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(answer.json_length, 3);
    ck_assert_uint_eq(answer.length, 5);
    moed_client_answer_close(&answer);
    stop(client);
    was_sent("DELETE /behind/a/proxy/v2/x HTTP/1.1\r\n");
    was_sent("\r\nInference-Header-Content-Length: 7\r\n");
    was_sent("{\"a\":1}binary");
}
END_TEST

static void refused(const char *answer, enum moed_client_code code, const char *part,
                    struct moed_client_error *err)
{
    *err = (struct moed_client_error){0};
    start(answer);
    struct moed_client *client = moed_client_new(canned.url, NULL, err);
    ck_assert_ptr_null(moed_client_model(client, "m", NULL, err));
    stop(client);
    ck_assert_int_eq(err->code, code);
    ck_assert_msg(strstr(err->text, part) != NULL, "%s", err->text);
}

START_TEST(errors_say_what_and_when_to_come_back)
{
    struct moed_client_error err;
    refused(
        HEAD("429 Busy") "Retry-After: 3\r\nContent-Length: 22\r\n\r\n{\"error\":\"queue full\"}",
        MOED_CLIENT_REFUSED, "GET /v2/models/m: 429: queue full", &err);
    ck_assert_int_eq(err.status, 429);
    ck_assert(err.retry_after_seconds == 3);
    refused(HEAD("400 Bad") "Content-Length: 26\r\n\r\n{\"error\":{\"message\":\"so\"}} ",
            MOED_CLIENT_REFUSED, "400: so", &err);
    refused(HEAD("502 Bad Gateway") "Content-Length: 6\r\n\r\n<html>", MOED_CLIENT_REFUSED,
            "502: no reason was given", &err);
    refused(HEAD("200 OK") "Content-Length: 6\r\n\r\n<html>", MOED_CLIENT_PROTOCOL, "the metadata",
            &err);
    refused(HEAD("200 OK") "Content-Length: 2\r\n\r\n{}", MOED_CLIENT_PROTOCOL, "no name", &err);
    refused(HEAD("200 OK") "Content-Length: 20\r\n\r\n{}", MOED_CLIENT_UNREACHABLE, "no answer",
            &err);
    refused("nonsense", MOED_CLIENT_UNREACHABLE, "no answer", &err);
}
END_TEST

START_TEST(an_answer_is_bounded_and_its_numbers_are_digits)
{
    struct moed_client_error err = {0};
    const struct moed_client_options options = {.max_answer_bytes = 4};
    for (int i = 0; i < 2; i++) {
        start(i ? HEAD("200 OK") "\r\n[1,2]" : HEAD("200 OK") "Content-Length: 4\r\n\r\n[12]");
        struct moed_client *client = moed_client_new(canned.url, &options, &err);
        char *text = moed_client_server(client, &err);
        stop(client);
        ck_assert_int_eq(text != NULL, i == 0);
        free(text);
    }
    ck_assert_int_eq(err.code, MOED_CLIENT_PROTOCOL);
    ck_assert_msg(strstr(err.text, "more than 4 bytes") != NULL, "%s", err.text);
    static const char *const ODD[] = {"-1", "+3", "0x10", "3 4", "99999999999999999999"};
    for (size_t i = 0; i < sizeof ODD / sizeof *ODD; i++) {
        char answer[256];
        snprintf(answer, sizeof answer,
                 HEAD("429 Busy") "Retry-After: %s\r\nContent-Length: 0\r\n\r\n", ODD[i]);
        refused(answer, MOED_CLIENT_REFUSED, "429", &err);
        ck_assert_msg(err.retry_after_seconds == 0, "%s", ODD[i]);
    }
}
END_TEST

START_TEST(errors_end_where_a_character_does)
{
    struct moed_client_error err;
    for (size_t shift = 0; shift < 3; shift++) {
        char text[600] = "", answer[1024];
        memset(text, 'x', shift);
        for (size_t i = shift; i < 590; i += 3)
            memcpy(text + i, "\u20AC", 3);
        snprintf(answer, sizeof answer, HEAD("400 Bad") "\r\n{\"error\":\"%s\"}", text);
        refused(answer, MOED_CLIENT_REFUSED, "400: ", &err);
        json_t *whole = json_string(err.text);
        ck_assert_msg(whole != NULL, "cut with %zu", shift);
        json_decref(whole);
    }
}
END_TEST

START_TEST(a_call_is_one_request)
{
    static const struct {
        const char *method, *path;
    } CALLS[] = {{"GET", "v2"},         {"GET", ""},     {"GET", NULL},    {"GET", "/a b"},
                 {"GET", "/a\r\nX: y"}, {"GET", "/a#b"}, {"GET", "/\x7f"}, {"GET", "/\xc3\xa9"},
                 {"", "/v2"},           {NULL, "/v2"},   {"G T", "/v2"},   {"GET /\r\n\r\n", "/v2"},
                 {"get", "/v2"}};
    struct moed_client_error err;
    struct moed_client *client = moed_client_new("http://127.0.0.1:1", NULL, NULL);
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        struct moed_client_answer answer;
        const struct moed_client_call call = {.method = CALLS[i].method,
                                              .path = (char *)CALLS[i].path};
        err = (struct moed_client_error){0};
        ck_assert_int_eq(moed_client_exchange(client, &call, &answer, &err), -1);
        ck_assert_msg(err.code == MOED_CLIENT_INVALID, "%zu: %s", i, err.text);
    }
    moed_client_free(client);
    start(HEAD("200 OK") "Content-Length: 2\r\n\r\n{}");
    client = moed_client_new(canned.url, NULL, &err);
    char path[] = "/v2/../x/./%2e?a=b&c";
    struct moed_client_answer answer;
    ck_assert_int_eq(moed_client_exchange(client,
                                          &(struct moed_client_call){"GET", path, NULL, 0, 0},
                                          &answer, &err),
                     0);
    moed_client_answer_close(&answer);
    stop(client);
    was_sent("GET /behind/a/proxy/v2/../x/./%2e?a=b&c HTTP/1.1\r\n");
}
END_TEST

START_TEST(a_password_is_not_told)
{
    static const char *const URLS[] = {"http://me:secret@127.0.0.1:1/", "ftp://me:secret@host",
                                       "http://me:secret@127.0.0.1:1/a b", "me:secret@host",
                                       "http://me:s/secret@127.0.0.1:1"};
    for (size_t i = 0; i < sizeof URLS / sizeof *URLS; i++) {
        struct moed_client_error err = {0};
        struct moed_client *client = moed_client_new(URLS[i], NULL, &err);
        ck_assert_int_eq(client != NULL, i == 0 || i == 4);
        if (client)
            ck_assert_ptr_null(moed_client_server(client, &err));
        moed_client_free(client);
        ck_assert_msg(*err.text && !strstr(err.text, "secret"), "%s", err.text);
    }
}
END_TEST

static bool yes(void *context)
{
    ++*(int *)context;
    return true;
}

START_TEST(a_call_ends_in_time_or_when_cancelled)
{
    struct moed_client_error err = {0};
    start(NULL);
    struct moed_client *client =
        moed_client_new(canned.url, &(struct moed_client_options){.timeout_seconds = 0.05}, &err);
    ck_assert_ptr_null(moed_client_server(client, &err));
    ck_assert_int_eq(err.code, MOED_CLIENT_UNREACHABLE);
    stop(client);
    int asked = 0;
    err = (struct moed_client_error){0};
    start(NULL);
    client = moed_client_new(
        canned.url, &(struct moed_client_options){.cancelled = yes, .context = &asked}, &err);
    ck_assert_ptr_null(moed_client_metrics(client, &err));
    ck_assert_int_eq(err.code, MOED_CLIENT_CANCELLED);
    ck_assert_int_gt(asked, 0);
    shutdown(canned.listener, SHUT_RDWR); /* cancelled before it was connected */
    stop(client);
}
END_TEST

TEST_MAIN("client exchange", a_request_says_who_asks, v1_is_posted_as_it_is, any_method_with_a_body,
          errors_say_what_and_when_to_come_back, an_answer_is_bounded_and_its_numbers_are_digits,
          errors_end_where_a_character_does, a_call_is_one_request, a_password_is_not_told,
          a_call_ends_in_time_or_when_cancelled)

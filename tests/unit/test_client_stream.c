/* The C client against a server whose answers are streams of events, and with memory that fails. */
#include "canned.h"

#define STREAM  HEAD("200 OK") "Content-Type: text/event-stream\r\n"
#define CHUNKED STREAM "Transfer-Encoding: chunked\r\n\r\n"

/* ---- an allocator that fails on purpose, in the thread that asks it to ---- */

#ifdef MOED_SANITIZED
#define REAL(function) __interceptor_##function
#else
#define REAL(function) __libc_##function
#endif
void *REAL(malloc)(size_t bytes);
void *REAL(calloc)(size_t count, size_t bytes);
void *REAL(realloc)(void *memory, size_t bytes);

/* The first calls come before a sanitizer is ready. */
#define UNWATCHED __attribute__((no_sanitize("address"), no_sanitize("thread")))

static _Thread_local size_t fail_at; /* which allocation fails, counted from 1; 0: none */
static _Thread_local size_t made;

UNWATCHED static bool fails(void)
{
    return fail_at > 0 && ++made == fail_at;
}

UNWATCHED void *malloc(size_t bytes)
{
    return fails() ? NULL : REAL(malloc)(bytes);
}

UNWATCHED void *calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : REAL(calloc)(count, bytes);
}

UNWATCHED void *realloc(void *memory, size_t bytes)
{
    return fails() ? NULL : REAL(realloc)(memory, bytes);
}

/* ---- one stream ---- */

struct heard {
    char text[256]; /* every event in brackets */
    int most;       /* then no more are wanted; 0: all are */
    int count;
};

static bool hear(void *context, const char *data, size_t length)
{
    struct heard *heard = context;
    const size_t used = strlen(heard->text);
    snprintf(heard->text + used, sizeof heard->text - used, "[%s]",
             strlen(data) == length ? data : "of another length");
    return ++heard->count != heard->most;
}

static int stream(struct moed_client *client, struct heard *heard, struct moed_client_error *err)
{
    char path[] = "/v1/completions", body[] = "{\"stream\":true}";
    const struct moed_client_call call = {"POST", path, body, sizeof body - 1, 0};
    return moed_client_stream(client, &call, hear, heard, err);
}

static int stream_of(const char *answer, const struct moed_client_options *options,
                     struct heard *heard, struct moed_client_error *err)
{
    *err = (struct moed_client_error){0};
    start(answer);
    struct moed_client *client = moed_client_new(canned.url, options, err);
    const int result = stream(client, heard, err);
    stop(client);
    return result;
}

START_TEST(events_come_one_by_one)
{
    struct moed_client_error err;
    struct heard heard = {0};
    const char *answer = CHUNKED "9\r\ndata: one\r\n4\r\n\n\nda\r\n9\r\nta: two\n\n\r\n0\r\n\r\n";
    ck_assert_msg(stream_of(answer, NULL, &heard, &err) == 0, "%s", err.text);
    ck_assert_str_eq(heard.text, "[one][two]");
    was_sent("POST /behind/a/proxy/v1/completions HTTP/1.1\r\n");
    was_sent("{\"stream\":true}");
    heard = (struct heard){.most = 1};
    ck_assert_int_eq(stream_of(answer, NULL, &heard, &err), 0);
    ck_assert_str_eq(heard.text, "[one]");
    heard = (struct heard){0};
    answer = HEAD("200 OK") "content-type: Text/Event-Stream; charset=utf-8\r\n\r\ndata: a\n\n";
    ck_assert_int_eq(stream_of(answer, NULL, &heard, &err), 0);
    ck_assert_str_eq(heard.text, "[a]");
}
END_TEST

static void refused(const char *answer, enum moed_client_code code, const char *part,
                    const char *events)
{
    struct moed_client_error err;
    struct heard heard = {0};
    ck_assert_int_eq(
        stream_of(answer, &(struct moed_client_options){.max_answer_bytes = 40}, &heard, &err), -1);
    ck_assert_msg(err.code == code && strstr(err.text, part), "%d: %s", err.code, err.text);
    ck_assert_str_eq(heard.text, events);
}

START_TEST(what_is_no_stream_is_refused)
{
    refused(HEAD("404 No") "\r\n{\"error\":{\"message\":\"so\"}}", MOED_CLIENT_REFUSED, "404: so",
            "");
    refused(HEAD("500 No") "Content-Type: text/event-stream\r\n\r\ndata: a\n\n",
            MOED_CLIENT_REFUSED, "500: no reason", "");
    refused(HEAD("200 OK") "Content-Type: text/html\r\n\r\ndata: a\n\n", MOED_CLIENT_PROTOCOL,
            "POST /v1/completions: expected text/event-stream, got text/html", "");
    refused(HEAD("200 OK") "Content-Type: text/event-streams\r\n\r\ndata: a\n\n",
            MOED_CLIENT_PROTOCOL, "got text/event-streams", "");
    refused(HEAD("204 OK") "\r\n", MOED_CLIENT_PROTOCOL, "got nothing", "");
    refused("nonsense", MOED_CLIENT_UNREACHABLE, "no answer", "");
}
END_TEST

START_TEST(a_stream_that_breaks_off_or_has_no_end)
{
    refused(CHUNKED "9\r\ndata: a\n\n\r\n9\r\ndat", MOED_CLIENT_UNREACHABLE, "the answer broke off",
            "[a]");
    refused(STREAM "\r\ndata: a\n\ndata: 23456789012345678901234567890123456\n\n",
            MOED_CLIENT_PROTOCOL, "an event of more than 40 bytes", "[a]");
    refused(HEAD("400 No") "\r\n1234567890123456789012345678901234567890\n", MOED_CLIENT_PROTOCOL,
            "an answer of more than 40 bytes", "");
}
END_TEST

static bool yes(void *context)
{
    (void)context;
    return true;
}

START_TEST(silence_ends_a_stream_and_so_does_who_listens)
{
    struct moed_client_error err;
    struct heard heard = {0};
    const struct moed_client_options brief = {.timeout_seconds = 0.05},
                                     cancelled = {.cancelled = yes};
    ck_assert_int_eq(stream_of(NULL, &brief, &heard, &err), -1);
    ck_assert_msg(err.code == MOED_CLIENT_UNREACHABLE && strstr(err.text, "no event for 0.05 s"),
                  "%s", err.text);
    err = (struct moed_client_error){0};
    start(NULL);
    struct moed_client *client = moed_client_new(canned.url, &cancelled, &err);
    ck_assert_int_eq(stream(client, &heard, &err), -1);
    ck_assert_int_eq(err.code, MOED_CLIENT_CANCELLED);
    shutdown(canned.listener, SHUT_RDWR); /* cancelled before it was connected */
    stop(client);
}
END_TEST

START_TEST(memory_may_be_short_at_any_time)
{
    size_t failures = 0;
    for (bool all = false; !all; failures++) {
        struct moed_client_error err = {0};
        struct heard heard = {0};
        start(STREAM "\r\ndata: a\n\ndata: b\n\n");
        struct moed_client *client = moed_client_new(canned.url, NULL, &err);
        made = 0;
        fail_at = failures + 1;
        const int result = stream(client, &heard, &err);
        all = made < fail_at;
        fail_at = 0;
        ck_assert_msg(result == 0 || err.code != MOED_CLIENT_OK, "%zu", failures);
        ck_assert_msg(result != 0 || strcmp(heard.text, "[a][b]") == 0, "%zu: %s", failures,
                      heard.text);
        shutdown(canned.listener, SHUT_RDWR); /* where it was not connected */
        stop(client);
    }
    ck_assert_uint_gt(failures, 10);
}
END_TEST

TEST_MAIN("client stream", events_come_one_by_one, what_is_no_stream_is_refused,
          a_stream_that_breaks_off_or_has_no_end, silence_ends_a_stream_and_so_does_who_listens,
          memory_may_be_short_at_any_time)

/* The C client's reading of server-sent events: whole however they are cut, bounded, and refused
 * where memory is short. */
#include <string.h>

#include "clients/c/events.h"
#include "support.h"

/* ---- an allocator that fails on purpose ---- */

static size_t fail_after = SIZE_MAX; /* so many succeed */

#ifdef MOED_SANITIZED
#define REAL(function) __interceptor_##function
#else
#define REAL(function) __libc_##function
#endif
void *REAL(realloc)(void *memory, size_t bytes);

/* The first calls come before a sanitizer is ready. */
__attribute__((no_sanitize("address"), no_sanitize("thread"))) void *realloc(void *memory,
                                                                             size_t bytes)
{
    if (fail_after == 0)
        return NULL;
    fail_after -= fail_after != SIZE_MAX;
    return REAL(realloc)(memory, bytes);
}

/* ---- events ---- */

/* Every event in brackets. */
static char heard[4096];
static size_t most_heard = SIZE_MAX; /* then no more are wanted */

static bool hear(void *context, const char *data, size_t length)
{
    size_t used = strlen(heard);
    ck_assert_ptr_eq(context, heard);
    ck_assert_uint_eq(strlen(data), length);
    snprintf(heard + used, sizeof heard - used, "[%s]", data);
    return --most_heard > 0;
}

/* In parts of `step` bytes. */
static enum client_events_end feed(const char *bytes, size_t most, size_t step)
{
    struct client_events events = {.on_event = hear, .context = heard, .most = most};
    enum client_events_end end = EVENTS_GO_ON;
    const size_t length = strlen(bytes);
    *heard = '\0';
    for (size_t at = 0; at < length && end == EVENTS_GO_ON; at += step)
        end = client_events_feed(&events, bytes + at, step < length - at ? step : length - at);
    client_events_close(&events);
    return end;
}

static void hears(const char *bytes, const char *expected)
{
    for (size_t step = 1; step <= strlen(bytes); step++) {
        ck_assert_int_eq(feed(bytes, 1000, step), EVENTS_GO_ON);
        ck_assert_msg(strcmp(heard, expected) == 0, "%s in %zu: %s", bytes, step, heard);
    }
}

START_TEST(events_are_whole_however_they_are_cut)
{
    hears("data: a\n\ndata: b\n\n", "[a][b]");
    hears("data: a\r\n\r\ndata: b\r\n\r\n", "[a][b]");
    hears("data: one\r\ndata: two\r\n\r\n", "[one\ntwo]");
    hears("data: a\r\rdata: b\r\r", "[a][b]");
    hears("data: one\ndata:two\ndata\ndata:  three\n\n", "[one\ntwo\n\n three]");
    hears("\xEF\xBB\xBF"
          "data: a\n\n",
          "[a]");
    hears("\n\n\r\ndata: a\n\n\n\n", "[a]");
    hears("data:\n\n", "[]");
    hears("data: a:b\n\n", "[a:b]");
}
END_TEST

START_TEST(what_is_no_data_is_left_out)
{
    hears(": hello\n\ndata: a\n: hello\nevent: x\nid: 1\nretry: 2\n\n", "[a]");
    hears("datax: a\n\n dat: b\n\ndat: c\n\nDATA: d\n\ndata : e\n\n", "");
    hears("data: a\n\ndata: b\n", "[a]"); /* the end of the stream is none of an event */
    hears("data: a\n\ndata: b", "[a]");
    hears("data: a\n\n\xEF\xBB\xBF"
          "data: b\n\n",
          "[a]");
}
END_TEST

START_TEST(an_event_is_bounded)
{
    for (size_t step = 1; step < 40; step++) {
        ck_assert_int_eq(feed("data: 3456789\n\ndata: 3456789\n\n", 13, step), EVENTS_GO_ON);
        ck_assert_str_eq(heard, "[3456789][3456789]");
        ck_assert_int_eq(feed("data: a\n\ndata: 34567890\n\n", 13, step), EVENTS_TOO_LONG);
        ck_assert_str_eq(heard, "[a]");
        ck_assert_int_eq(feed("data: 12\ndata: 34\ndata: 56\n\n", 13, step), EVENTS_TOO_LONG);
        ck_assert_int_eq(feed(":1234567890123", 13, step), EVENTS_TOO_LONG);
        ck_assert_int_eq(feed(":12\n:12\n:12\n:12\n:12\n", 13, step), EVENTS_GO_ON);
    }
}
END_TEST

START_TEST(who_has_heard_enough_hears_no_more)
{
    for (size_t step = 1; step < 30; step++) {
        most_heard = 2;
        ck_assert_int_eq(feed("data: a\n\ndata: b\n\ndata: c\n\n", 100, step), EVENTS_STOPPED);
        ck_assert_str_eq(heard, "[a][b]");
        most_heard = SIZE_MAX;
    }
}
END_TEST

START_TEST(memory_may_be_short)
{
    static char stream[20000]; /* two events, for the second of which memory grows four times */
    memset(stream, 'x', sizeof stream - 1);
    memcpy(stream, "data: a\n\ndata: ", 15);
    for (size_t allowed = 0; allowed < 5; allowed++) {
        fail_after = allowed;
        const enum client_events_end end = feed(stream, sizeof stream, 1000);
        fail_after = SIZE_MAX;
        ck_assert_int_eq(end, allowed < 4 ? EVENTS_NO_MEMORY : EVENTS_GO_ON);
        ck_assert_str_eq(heard, allowed > 0 ? "[a]" : "");
    }
}
END_TEST

TEST_MAIN("client events", events_are_whole_however_they_are_cut, what_is_no_data_is_left_out,
          an_event_is_bounded, who_has_heard_enough_hears_no_more, memory_may_be_short)

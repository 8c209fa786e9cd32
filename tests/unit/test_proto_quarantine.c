/* Experts in quarantine as JSON: what a request may say, and a file that comes back as it was. */
#include "core/memory.h"
#include "proto/quarantine.h"
#include "test_proto_support.h"

static void refused(const char *body, const char *expected)
{
    struct quarantine_entry entry;
    struct error err = ERROR_INIT;
    struct guarded copy = guarded_text(body);
    ck_assert_int_eq(quarantine_read_request(copy.text, copy.length, &entry, &err), -1);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    ck_assert_msg(strstr(err.text, expected), "%s: %s", body, err.text);
    ck_assert_ptr_null(entry.layer);
    guarded_free(&copy);
}

START_TEST(a_request)
{
    struct quarantine_entry entry;
    struct error err = ERROR_INIT;
    static const char body[] = "{\"layer\":\"moe\",\"expert\":3,\"reason\":\"NaN since Monday\"}";
    ck_assert_int_eq(quarantine_read_request(body, sizeof body - 1, &entry, &err), 0);
    ck_assert_str_eq(entry.layer, "moe");
    ck_assert_uint_eq(entry.expert, 3);
    ck_assert_str_eq(entry.reason, "NaN since Monday");
    quarantine_entry_close(&entry);
    static const char bare[] = "{\"layer\":\"moe\",\"expert\":0}";
    ck_assert_int_eq(quarantine_read_request(bare, sizeof bare - 1, &entry, &err), 0);
    ck_assert_str_eq(entry.reason, "");
    quarantine_entry_close(&entry);
}
END_TEST

START_TEST(a_wrong_request)
{
    char body[1024];
    refused("", "malformed JSON");
    refused("[]", "the body is a list, expected an object");
    refused("{\"expert\":3}", "'layer' is missing");
    refused("{\"layer\":\"moe\"}", "'expert' is missing");
    refused("{\"layer\":\"moe\",\"expert\":-1}", "'expert' is -1, expected a whole number");
    refused("{\"layer\":\"moe\",\"expert\":3,\"why\":\"\"}", "unknown member 'why'");
    snprintf(body, sizeof body, "{\"layer\":\"moe\",\"expert\":3,\"reason\":\"%0600d\"}", 0);
    refused(body, "'reason' has 600 bytes, the limit is 512");
}
END_TEST

START_TEST(a_file_comes_back)
{
    struct quarantine_entry entries[] = {
        {"digits", "1", "moe", 3, "a \"reason\"\n", "ops at 127.0.0.1", "id-1", 1764000000},
        {"other", "12", "a.b", 0, "", "", "", 0}};
    struct quarantine_entry *read = xcalloc(QUARANTINE_MAX_ENTRIES, sizeof *read);
    struct buffer text, again;
    struct error err = ERROR_INIT;
    size_t count;
    buffer_init(&text, 1 << 16);
    buffer_init(&again, 1 << 16);
    quarantine_write_list(entries, 2, &text);
    ck_assert_int_eq(quarantine_read_list(text.data, text.length, read, &count, &err), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(read[0].reason, "a \"reason\"\n");
    quarantine_write_list(read, count, &again);
    ck_assert_uint_eq(again.length, text.length);
    ck_assert_mem_eq(again.data, text.data, text.length);
    while (count > 0)
        quarantine_entry_close(&read[--count]);
    buffer_close(&text);
    buffer_close(&again);
    free(read);
}
END_TEST

START_TEST(a_damaged_file)
{
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{\"version\":0,\"quarantine\":[]}",
        "{\"version\":1,\"quarantine\":{}}",
        "{\"version\":1,\"quarantine\":[{\"layer\":\"moe\",\"expert\":1,\"model\":\"m\"}]}",
        "{\"version\":1,\"quarantine\":[1]}"};
    struct quarantine_entry *read = xcalloc(QUARANTINE_MAX_ENTRIES, sizeof *read);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error err = ERROR_INIT;
        size_t count;
        ck_assert_int_eq(quarantine_read_list(texts[i], strlen(texts[i]), read, &count, &err), -1);
        ck_assert_uint_eq(count, 0);
        ck_assert_int_eq(err.code, ERROR_INVALID);
    }
    free(read);
}
END_TEST

/* Not damaged, whatever it looks like: a newer version will want it. */
START_TEST(a_newer_file)
{
    static const char TEXT[] = "{\"version\":2,\"quarantine\":{\"m\":[]}}";
    struct quarantine_entry *read = xcalloc(QUARANTINE_MAX_ENTRIES, sizeof *read);
    struct error err = ERROR_INIT;
    size_t count;
    ck_assert_int_eq(quarantine_read_list(TEXT, strlen(TEXT), read, &count, &err), -1);
    ck_assert_int_eq(err.code, ERROR_UNSUPPORTED);
    free(read);
}
END_TEST

RUN_TESTS("proto/quarantine", a_request, a_wrong_request, a_file_comes_back, a_damaged_file,
          a_newer_file)

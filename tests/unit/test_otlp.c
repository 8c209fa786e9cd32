#include <jansson.h>
#include <string.h>

#include "proto/oip_trace.h"
#include "proto/otlp.h"
#include "tests/unit/test_proto_support.h"

#define TRACE  "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"

/* ---- the header ---- */

START_TEST(a_header_that_is_a_trace_context)
{
    static const struct {
        const char *text;
        bool sampled;
    } good[] = {{"00-" TRACE "-" PARENT "-01", true},
                {"00-" TRACE "-" PARENT "-00", false},
                {"00-" TRACE "-" PARENT "-ff", true},
                {"cc-" TRACE "-" PARENT "-01", true},
                {"cc-" TRACE "-" PARENT "-01-what comes later", true}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct trace_context context = {0};
        ck_assert_msg(trace_context_read(good[i].text, &context), "%s", good[i].text);
        ck_assert_uint_eq(context.trace[0], 0x0A);
        ck_assert_uint_eq(context.trace[15], 0x9C);
        ck_assert_uint_eq(context.parent[7], 0x31);
        ck_assert_int_eq(context.sampled, good[i].sampled);
    }
}
END_TEST

START_TEST(a_header_that_is_none)
{
    static const char *const bad[] = {
        "",
        "0",
        "00",
        "00-",
        "ff-" TRACE "-" PARENT "-01",
        "00-" TRACE "-" PARENT "-01-",
        "00-" TRACE "-" PARENT "-1",
        "00-" TRACE "-" PARENT,
        "cc-" TRACE "-" PARENT "-01x",
        "00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" TRACE "-0000000000000000-01",
        "00_" TRACE "-" PARENT "-01",
        "00-" TRACE "-b7ad6b716920333-01",
    };
    struct trace_context context = {.sampled = true};
    ck_assert(!trace_context_read(NULL, &context));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct guarded copy = guarded_copy(bad[i], strlen(bad[i]) + 1);
        ck_assert_msg(!trace_context_read(copy.text, &context), "%s", bad[i]);
        ck_assert(context.sampled && context.trace[0] == 0);
        guarded_free(&copy);
    }
}
END_TEST

/* ---- spans ---- */

static json_t *encode(const struct otlp_span *spans, size_t count)
{
    struct buffer body;
    buffer_init(&body, 1 << 20);
    otlp_encode(spans, count, "1.2", &body);
    ck_assert(!body.failed);
    json_t *root = json_loadb(body.data, body.length, 0, NULL);
    ck_assert_msg(root != NULL, "%.*s", (int)body.length, body.data);
    buffer_close(&body);
    return root;
}

static const char *text_of(json_t *span, const char *key)
{
    return json_string_value(json_object_get(span, key));
}

/* Those of the request that is first in the list. */
static void check_stages(json_t *list)
{
    static const struct {
        const char *name, *id, *start, *end;
    } stages[] = {{"receive", "0200000000000000", "1700000000123456789", "1700000000123456799"},
                  {"admit", "0300000000000000", "1700000000123456799", "1700000000123456819"},
                  {"compute", "0500000000000000", "1700000000123456819", "1700000000123456859"}};
    for (size_t i = 0; i < 3; i++) {
        json_t *stage = json_array_get(list, i + 1);
        ck_assert_str_eq(text_of(stage, "name"), stages[i].name);
        ck_assert_str_eq(text_of(stage, "spanId"), stages[i].id);
        ck_assert_str_eq(text_of(stage, "parentSpanId"), "0100000000000000");
        ck_assert_str_eq(text_of(stage, "startTimeUnixNano"), stages[i].start);
        ck_assert_str_eq(text_of(stage, "endTimeUnixNano"), stages[i].end);
    }
}

START_TEST(a_request_and_its_stages)
{
    struct otlp_span spans[] = {{.id = {1},
                                 .stage_id = {{2}, {3}, {4}, {5}, {6}},
                                 .start_ns = 1700000000123456789,
                                 .duration_ns = 100,
                                 .stage_ns = {10, 20, 0, 40, 0},
                                 .method = "POST",
                                 .name = "POST /v1/{model}",
                                 .route = "/v1/{model}",
                                 .path = "/v1/\"\xff",
                                 .model = "m",
                                 .rows = 3,
                                 .status = 503},
                                {.method = "GET", .name = "GET", .status = 404}};
    ck_assert(trace_context_read("00-" TRACE "-" PARENT "-01", &spans[0].context));
    json_t *root = encode(spans, 2), *list, *request;
    int failed =
        json_unpack(root, "{s:[{s:[{s:o}]}]}", "resourceSpans", "scopeSpans", "spans", &list);
    ck_assert_int_eq(failed, 0);
    ck_assert_uint_eq(json_array_size(list), 5);
    request = json_array_get(list, 0);
    ck_assert_str_eq(text_of(request, "traceId"), TRACE);
    ck_assert_str_eq(text_of(request, "name"), "POST /v1/{model}");
    ck_assert_str_eq(text_of(request, "spanId"), "0100000000000000");
    ck_assert_str_eq(text_of(request, "parentSpanId"), PARENT);
    ck_assert_str_eq(text_of(request, "startTimeUnixNano"), "1700000000123456789");
    ck_assert_str_eq(text_of(request, "endTimeUnixNano"), "1700000000123456889");
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_object_get(request, "status"), "code")), 2);
    check_stages(list);
    json_t *other = json_array_get(list, 4);
    ck_assert_ptr_null(json_object_get(other, "parentSpanId"));
    ck_assert_uint_eq(json_object_size(json_object_get(other, "status")), 0);
    json_decref(root);
}
END_TEST

/* ---- settings ---- */

static int decode(const char *text, struct oip_trace *settings, struct error *err)
{
    return oip_decode_trace(text, strlen(text), settings, err);
}

START_TEST(settings_that_can_be_changed)
{
    static const struct {
        const char *text;
        bool off;
        unsigned rate;
    } good[] = {{"{\"trace_rate\":\"7\",\"trace_level\":[\"TIMESTAMPS\"]}", false, 7},
                {"{\"trace_level\":[\"OFF\"]}", true, 7},
                {"{\"trace_level\":[\"TIMESTAMPS\"]}", false, 7},
                {"{\"trace_level\":[\"OFF\"],\"trace_rate\":\"8\"}", true, 8},
                {"{\"trace_rate\":\"9\"}", false, 9},
                {"{\"trace_rate\":\"0\"}", false, 0}};
    struct oip_trace settings = {.has_collector = true, .rate = 5};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        ck_assert_int_eq(decode(good[i].text, &settings, &(struct error)ERROR_INIT), 0);
        ck_assert_msg(settings.off == good[i].off && settings.rate == good[i].rate, "%s",
                      good[i].text);
    }
}
END_TEST

START_TEST(settings_that_cannot)
{
    static const struct {
        const char *text, *message;
    } bad[] = {{"{\"trace_rate\":7}", "trace_rate is a number, expected a string"},
               {"{\"trace_rate\":\"0\",\"trace_level\":[\"TIMESTAMPS\"]}", "trace_rate is 0"},
               {"{\"trace_rate\":\"-1\"}", "trace_rate is '-1'"},
               {"{\"trace_rate\":\"9999999999\"}", "up to 1000000000"},
               {"{\"trace_level\":[\"TENSORS\"]}", "expected [\"OFF\"]"},
               {"{\"trace_level\":\"OFF\"}", "expected [\"OFF\"]"},
               {"{\"trace_file\":\"/x\"}", "setting 'trace_file' cannot be changed"},
               {"[]", "expected an object"},
               {"{", "malformed JSON"}};
    struct oip_trace settings = {.has_collector = true, .rate = 5};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err = ERROR_INIT;
        ck_assert_int_eq(decode(bad[i].text, &settings, &err), -1);
        ck_assert_msg(strstr(err.text, bad[i].message) != NULL, "%s: %s", bad[i].text, err.text);
        ck_assert_uint_eq(settings.rate, 5);
    }
    settings = (struct oip_trace){.off = true};
    struct error err = ERROR_INIT;
    ck_assert_int_eq(decode("{}", &settings, &err), 0);
    ck_assert_int_eq(decode("{\"trace_rate\":\"0\"}", &settings, &err), 0);
    ck_assert_int_eq(decode("{\"trace_rate\":\"1\"}", &settings, &err), -1);
    ck_assert(strstr(err.text, "--trace-endpoint") != NULL);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(decode("{\"trace_level\":[\"TIMESTAMPS\"]}", &settings, &err), -1);
    ck_assert(strstr(err.text, "--trace-endpoint") != NULL);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_header_that_is_a_trace_context, a_header_that_is_none,
                                  a_request_and_its_stages, settings_that_can_be_changed,
                                  settings_that_cannot};
    return run_tests("otlp", tests, sizeof tests / sizeof *tests);
}

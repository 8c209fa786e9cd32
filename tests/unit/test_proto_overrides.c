/* "experts" of a request, as an object (V1) and as a string that holds one (Open Inference
 * Protocol): both are read and carried back alike. */
#include "proto/oip.h"
#include "proto/overrides.h"
#include "proto/v1.h"
#include "test_proto_support.h"

/* Gates that choose among some of their layer's experts. */
static const int32_t some[] = {1, 4, 6};
static const struct signature_gate tasks_gates[] = {{"tasks.a", 3, 2, 1, some},
                                                    {"tasks.b", 8, 8, 1, NULL}};
static struct signature tasks_model;

static void set_up(void)
{
    tasks_model = digits_model;
    tasks_model.gates = tasks_gates;
}

static int decode(const struct signature *model, const char *format, const char *experts,
                  struct infer_request *request, struct error *err)
{
    char body[2048];
    snprintf(body, sizeof body, format, experts);
    struct guarded copy = guarded_text(body);
    *err = (struct error)ERROR_INIT;
    int result = v1_decode(model, &(struct infer_body){copy.text, copy.length, NULL}, &test_limits,
                           request, err);
    guarded_free(&copy);
    return result;
}

#define V1 "{\"instances\":[[1,2,3,4,5,6]],\"experts\":%s}"

static void expect_read(const struct signature *model, const char *experts, const char *text,
                        struct infer_request *request)
{
    struct error err;
    ck_assert_msg(decode(model, V1, experts, request, &err) == 0, "%s: %s", experts, err.text);
    ck_assert_str_eq(request->overrides.text, text);
}

static void refused(const struct signature *model, const char *experts, const char *expected)
{
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(model, V1, experts, &request, &err) == -1, "%s: accepted", experts);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    ck_assert_msg(strstr(err.text, expected), "%s: \"%s\" lacks \"%s\"", experts, err.text,
                  expected);
    ck_assert_ptr_null(request.overrides.items);
    ck_assert_ptr_null(request.overrides.text);
}

START_TEST(marks_experts)
{
    struct infer_request request;
    expect_read(&digits_model,
                "{\"blocks.1\": {\"only\": [2], \"top_k\": 1},\n"
                " \"moe\": {\"silence\": [0, 4], \"exclude\": [4.0], \"top_k\": null}}",
                "{\"blocks.1\":{\"only\":[2],\"top_k\":1},"
                "\"moe\":{\"exclude\":[4],\"silence\":[0,4]}}",
                &request);
    const struct infer_override *items = request.overrides.items;
    ck_assert_uint_eq(request.overrides.count, 2);
    ck_assert_uint_eq(items[0].gate, 1);
    ck_assert_uint_eq(items[0].top_k, 1);
    ck_assert_mem_eq(items[0].experts, "\1\1\4", 3);
    ck_assert_uint_eq(items[1].gate, 0);
    ck_assert_uint_eq(items[1].top_k, 0);
    ck_assert_mem_eq(items[1].experts, "\2\0\0\0\3", 5);
    infer_request_close(&request);
}
END_TEST

START_TEST(nothing_is_asked)
{
    static const char *const texts[] = {"{}", "{\"moe\":{}}", "{\"moe\":{\"exclude\":[]}}"};
    struct infer_request request;
    struct error err;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect_read(&digits_model, texts[i], texts[i], &request);
        ck_assert_uint_eq(request.overrides.count, i > 0);
        infer_request_close(&request);
    }
    ck_assert_int_eq(decode(&digits_model, V1, "null", &request, &err), 0);
    ck_assert_ptr_null(request.overrides.text);
    infer_request_close(&request);
}
END_TEST

START_TEST(indices_are_the_layers)
{
    struct infer_request request;
    expect_read(&tasks_model, "{\"tasks.a\":{\"exclude\":[6,1]}}",
                "{\"tasks.a\":{\"exclude\":[6,1]}}", &request);
    ck_assert_mem_eq(request.overrides.items[0].experts, "\1\0\1", 3);
    infer_request_close(&request);
    refused(&tasks_model, "{\"tasks.a\":{\"exclude\":[4,2]}}",
            "experts: gate 'tasks.a': 'exclude'[1] is 2, which is none of its 3 experts");
}
END_TEST

START_TEST(what_does_not_exist_is_refused)
{
    refused(&digits_model, "{\"mow\":{\"exclude\":[1]}}",
            "experts: model 'digits' has no gate 'mow'");
    refused(&digits_model, "{\"moe\":{\"exclude\":[1,5]}}",
            "experts: gate 'moe': 'exclude'[1] is 5, expected an expert from 0 to 4");
    refused(&digits_model, "{\"moe\":{\"silence\":[-1]}}",
            "'silence'[0] is -1, expected an expert");
    refused(&digits_model, "{\"moe\":{\"only\":[0.5]}}", "'only'[0] is 0.5, expected an expert");
    refused(&digits_model, "{\"moe\":{\"only\":[\"a\"]}}", "'only'[0] is a string, expected an");
    refused(&digits_model, "{\"moe\":{\"only\":[1,\"a\"]}}", "'only'[1] is a string, expected an");
    refused(&digits_model, "{\"moe\":{\"only\":[0,0,0,0,0,0]}}",
            "'only' has 6 entries, and the gate has 5 experts");
    refused(&digits_model, "{\"moe\":{\"top_k\":0}}", "'top_k' is 0, expected 1 to 2");
    refused(&digits_model, "{\"moe\":{\"top_k\":3}}", "'top_k' is 3, expected 1 to 2");
    refused(&digits_model, "{\"moe\":{\"top_k\":1.5}}", "'top_k' is 1.5, expected a whole number");
    refused(&digits_model, "{\"moe\":{\"topk\":1}}", "gate 'moe': unknown member 'topk', expected");
    refused(&digits_model, "{\"moe\":[1]}", "experts: gate 'moe' is a list, expected an object");
    refused(&digits_model, "{\"moe\":{\"exclude\":1}}", "'exclude' is a number, expected a list");
    refused(&digits_model, "[]", "'experts' is a list, expected an object");
}
END_TEST

/* ---- the Open Inference Protocol ---- */

#define OIP                                                                                        \
    "{\"parameters\":{\"experts\":%s},\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\","      \
    "\"shape\":[1,1,2,3],\"data\":[1,2,3,4,5,6]}]}"

static int decode_parameter(const char *experts, struct infer_request *request, struct error *err)
{
    char body[1024];
    snprintf(body, sizeof body, OIP, experts);
    *err = (struct error)ERROR_INIT;
    return oip_decode(&digits_model, &(struct infer_body){body, strlen(body), NULL}, &test_limits,
                      request, err);
}

START_TEST(a_parameter_is_a_string)
{
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode_parameter("\"{\\\"moe\\\": {\\\"exclude\\\": [3]}}\"", &request, &err) ==
                      0,
                  "%s", err.text);
    ck_assert_str_eq(request.overrides.text, "{\"moe\":{\"exclude\":[3]}}");
    ck_assert_mem_eq(request.overrides.items[0].experts, "\0\0\0\1\0", 5);
    infer_request_close(&request);
}
END_TEST

START_TEST(a_parameter_that_holds_no_object_is_refused)
{
    static const char *const cases[][2] = {
        {"{\"moe\":{}}", "parameters: 'experts' is an object, expected a string"},
        {"\"\"", "parameters: 'experts': the body is empty"},
        {"\"[1]\"", "parameters: 'experts': "},
        {"\"{\\\"moe\\\":{\\\"exclude\\\":[1,,2]}}\"", "malformed JSON at byte 21"},
        {"\"{\\\"moe\\\":{\\\"exclude\\\":[9]}}\"", "'exclude'[0] is 9, expected an expert from 0"},
    };
    struct infer_request request;
    struct error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_int_eq(decode_parameter(cases[i][0], &request, &err), -1);
        ck_assert_msg(strstr(err.text, cases[i][1]), "%s: \"%s\"", cases[i][0], err.text);
        ck_assert_ptr_null(request.overrides.items);
    }
}
END_TEST

START_TEST(answers_carry_it_back)
{
    struct infer_request request;
    struct fake_result fake;
    struct buffer body;
    struct error err = ERROR_INIT;
    size_t json_length;
    fake_result_init(&fake);
    for (int oip = 0; oip < 2; oip++) {
        const char *experts =
            oip ? "\"{\\\"moe\\\":{\\\"top_k\\\":1}}\"" : "{\"moe\":{\"top_k\":1}}";
        int result = oip ? decode_parameter(experts, &request, &err)
                         : decode(&digits_model, V1, experts, &request, &err);
        ck_assert_int_eq(result, 0);
        buffer_init(&body, 1 << 16);
        const struct protocol *protocol = oip ? &protocol_oip : &protocol_v1;
        ck_assert_int_eq(protocol->encode(&request, &fake.result, &body, &json_length, &err), 0);
        buffer_append(&body, "", 1);
        ck_assert_ptr_nonnull(
            strstr(body.data, oip ? "\"model_version\":\"3\",\"parameters\":{\"experts\":"
                                    "\"{\\\"moe\\\":{\\\"top_k\\\":1}}\"},\"outputs\":["
                                  : "]],\"experts\":{\"moe\":{\"top_k\":1}}}"));
        buffer_close(&body);
        infer_request_close(&request);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        marks_experts,           nothing_is_asked,
        indices_are_the_layers,  what_does_not_exist_is_refused,
        a_parameter_is_a_string, a_parameter_that_holds_no_object_is_refused,
        answers_carry_it_back};
    set_up();
    return run_tests("proto_overrides", tests, sizeof tests / sizeof *tests);
}

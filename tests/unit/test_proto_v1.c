/* v1: instances in, predictions out, as lists nested by shape. */
#include "proto/v1.h"
#include "test_proto_support.h"

static int decode(const struct signature *model, const char *body, struct guarded *copy,
                  struct infer_request *request, struct error *err)
{
    *copy = guarded_text(body);
    *err = (struct error)ERROR_INIT;
    return v1_decode(model, &(struct infer_body){.bytes = copy->text, .length = copy->length},
                     &test_limits, request, err);
}

static void refused_by(const struct signature *model, const char *body, const char *expected)
{
    struct guarded copy;
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(model, body, &copy, &request, &err) == -1, "%s: accepted", body);
    ck_assert_str_eq(err.text, expected);
    ck_assert_int_eq(err.code, strstr(expected, "limit") ? ERROR_TOO_LARGE : ERROR_INVALID);
    guarded_free(&copy);
}

static void refused(const char *body, const char *expected)
{
    refused_by(&digits_model, body, expected);
}

START_TEST(rows_are_the_entries)
{
    struct guarded copy;
    struct infer_request request;
    struct error err;
    int result = decode(&digits_model,
                        "{\"signature_name\":\"serving_default\",\"parameters\":{\"x\":[1,2]},"
                        "\"instances\":[[1,2,3,4,5,6],[[[7,8,9],[10,11,12]]]],\"routing\":true}",
                        &copy, &request, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    ck_assert_uint_eq(request.rows, 2);
    ck_assert(request.routing);
    ck_assert_ptr_null(request.id);
    ck_assert_uint_eq(request.output_count, 1);
    struct infer_reader reader;
    infer_reader_init(&reader, &request, 0);
    float values[12];
    ck_assert_int_eq(infer_reader_rows(&reader, 2, values, &err), 0);
    for (int i = 0; i < 12; i++)
        ck_assert(values[i] == (float)(i + 1));
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(wrong_rows_are_named)
{
    struct guarded copy;
    struct infer_request request;
    struct error err;
    ck_assert_int_eq(decode(&digits_model,
                            "{\"instances\":[[1,2,3,4,5,6],[1,2,3,4,5,6],[1,2,3,4,5]]}", &copy,
                            &request, &err),
                     0);
    struct infer_reader reader;
    infer_reader_init(&reader, &request, 0);
    float values[18];
    ck_assert_int_eq(infer_reader_rows(&reader, 2, values, &err), 0);
    ck_assert_int_eq(infer_reader_rows(&reader, 1, values, &err), -1);
    ck_assert_str_eq(err.text,
                     "input 'image': instances[2] has 5 numbers, expected 6 (shape [1,2,3])");
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(wrong_instances_are_refused)
{
    refused("{}",
            "'instances' is missing in the body, expected a list with one entry for each row");
    refused("{\"instances\":7}", "'instances' is a number, expected a list");
    refused("{\"instances\":[]}", "empty batch: 'instances' has no rows, expected at least one");
    refused("{\"instances\":[[]]}",
            "input 'image': instances[0] does not begin with numbers, expected 6");
    refused("{\"instances\":[\"a\"]}",
            "input 'image': instances[0] is a string, expected a list of 6 numbers: each row is a "
            "list of its own");
    refused("{\"instances\":[true]}",
            "input 'image': instances[0] is a boolean, expected a list of 6 numbers");
    refused("{\"instances\":[1,2,3,4,5,6]}",
            "input 'image': instances[0] is a number, expected a list of 6 numbers: each row is a "
            "list of its own");
    refused("{\"instances\":[[1],[2],[3],[4],[5],[6],[7],[8],[9]]}",
            "'instances' has 9 rows, the limit is 8 in one request");
}
END_TEST

START_TEST(wrong_members_are_refused)
{
    refused("{\"instances\":[[1]],\"routng\":true}",
            "unknown member 'routng', expected 'instances' or 'inputs', 'routing', 'tag', "
            "'labels', 'experts', 'priority', 'signature_name' or 'parameters'");
    refused("{\"instances\":[[1]],\"routing\":1}",
            "'routing' is a number, expected true, false or {\"probabilities\": true}");
    refused("{\"instances\":[[1,2,3,4,5,6]],\"parameters\":{\"x\":[1,,2]}}",
            "malformed JSON at byte 50 (line 1, column 51): unexpected token near ','");
}
END_TEST

START_TEST(several_inputs_are_named)
{
    refused_by(&pair_model, "{\"instances\":[[1,2]]}",
               "model 'pair' has 2 inputs: name them, as in {\"instances\": [{\"left\": ...}, "
               "...]}");
}
END_TEST

/* Two rows of `pair`, whatever form they come in. */
static void check_pair(const char *body, bool columns)
{
    struct guarded copy;
    struct infer_request request;
    struct error err;
    const float left[] = {1, 2, 3, 4}, right[] = {5, 6};
    float values[4];
    struct infer_reader reader;
    ck_assert_msg(decode(&pair_model, body, &copy, &request, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(request.rows, 2);
    ck_assert(request.columns == columns);
    infer_reader_init(&reader, &request, 0);
    ck_assert_msg(infer_reader_rows(&reader, 2, values, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(values, left, sizeof left);
    infer_reader_init(&reader, &request, 1);
    ck_assert_msg(infer_reader_rows(&reader, 2, values, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(values, right, sizeof right);
    infer_request_close(&request);
    guarded_free(&copy);
}

START_TEST(inputs_are_named_in_objects_and_columns)
{
    check_pair("{\"instances\":[{\"left\":[1,2],\"right\":5},{\"right\":6,\"left\":[3,4]}]}",
               false);
    check_pair("{\"instances\" : [ { \"left\" : [ 1 , 2 ] , \"right\" : 5 } ,\n"
               "{ \"right\" : 6e0, \"left\" : [3, 4.0] } ] , \"routing\": true}",
               false);
    check_pair("{\"inputs\":{\"left\":[[1,2],[3,4]],\"right\":[5,6]}}", true);
}
END_TEST

START_TEST(wrong_objects_are_refused)
{
#define ROW "{\"left\":[1,2],\"right\":5}"
    static const struct {
        const char *body, *expected;
    } cases[] = {
        {"[{}]", "instances[0]: input 'left' is missing"},
        {"[" ROW ",{\"left\":[1,2]}]", "instances[1]: input 'right' is missing"},
        {"[{\"left\":[1,2],\"up\":5}]", "instances[0]: unknown input 'up'"},
        {"[{\"left\":[1,2],\"left\":[1,2]}]", "instances[0]: input 'left' is given twice"},
        {"[" ROW ",3]", "instances[1]: byte 39: expected an object, like the rows before"},
        {"[" ROW " " ROW "]", "instances[1]: byte 39: expected the end of the list"},
        {"[{\"left\" 3}]", "instances[0]: byte 22: expected a colon"},
        {"[{\"left\":}]", "instances[0]: byte 22: expected a value: a number, a string, null or a "
                          "list of them"},
        {"[{\"left\":{\"b64\":3}}]", "instances[0]: byte 22: expected a value: a number, a string, "
                                     "null or a list of them"},
        {"[{\"left\":[{\"a\":3}]}]", "instances[0]: byte 23: expected a value: a number, a string, "
                                     "null or a list of them"},
        {"[{\"left\":3 4}]", "instances[0]: byte 24: expected a comma"},
        {"[{,}]", "instances[0]: byte 15: expected the name of an input"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"instances\":%s}", cases[i].body);
        refused_by(&pair_model, body, cases[i].expected);
    }
#undef ROW
}
END_TEST

START_TEST(wrong_columns_are_refused)
{
    static const struct {
        const char *body, *expected;
    } cases[] = {
        {"{\"inputs\":[[1,2]]}", "'inputs' is a list, expected an object with 2 inputs"},
        {"{\"inputs\":{\"left\":[[1,2]]}}", "input 'right' is missing in 'inputs'"},
        {"{\"inputs\":{\"left\":[[1,2]],\"right\":[1,2]}}",
         "input 'right' has 2 rows, the inputs before it 1"},
        {"{\"inputs\":{\"left\":[[1,2]],\"right\":3}}",
         "input 'right': expected a list with one entry a row"},
        {"{\"inputs\":{\"left\":[[1,2]],\"right\":[1],\"up\":[1]}}",
         "unknown input 'up' in 'inputs'"},
        {"{\"inputs\":{},\"instances\":[1]}", "expected 'instances' or 'inputs', not both"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_by(&pair_model, cases[i].body, cases[i].expected);
}
END_TEST

/* One number per row needs no list of its own. */
START_TEST(scalar_rows)
{
    static const struct signature_tensor scalar = {.name = "x", .elements = 1};
    static const struct signature model = {
        .model = "scalar",
        .version = "1",
        .input_count = 1,
        .output_count = 1,
        .inputs = &scalar,
        .outputs = &scalar,
    };
    struct guarded copy;
    struct infer_request request;
    struct error err;
    ck_assert_int_eq(decode(&model, "{\"instances\": [ 4, 5 ,6]}", &copy, &request, &err), 0);
    ck_assert_uint_eq(request.rows, 3);
    struct infer_reader reader;
    infer_reader_init(&reader, &request, 0);
    float values[3];
    ck_assert_int_eq(infer_reader_rows(&reader, 3, values, &err), 0);
    ck_assert(values[0] == 4 && values[1] == 5 && values[2] == 6);
    const float *lists[] = {values};
    struct buffer body;
    buffer_init(&body, 1 << 10);
    size_t json_length = 1;
    const struct infer_result result = {.outputs = lists};
    ck_assert_int_eq(v1_encode(&request, &result, &body, &json_length, &err), 0);
    ck_assert_uint_eq(json_length, 0);
    ck_assert_mem_eq(body.data, "{\"predictions\":[4.0,5.0,6.0]}", body.length);
    buffer_close(&body);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

static void check_encoded(const struct infer_request *request, const struct infer_result *result,
                          const char *expected)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct error err = ERROR_INIT;
    size_t json_length;
    ck_assert_int_eq(v1_encode(request, result, &body, &json_length, &err), 0);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, expected);
    buffer_close(&body);
}

START_TEST(predictions_and_routing)
{
    struct fake_result fake;
    fake_result_init(&fake);
    struct infer_request request = {.signature = &digits_model, .rows = 2};
    check_encoded(
        &request, &fake.result,
        "{\"predictions\":[[0.0,0.15625,0.3125,0.46875],[0.625,0.78125,0.9375,0.09375]]}");
    request.routing = true;
    check_encoded(&request, &fake.result,
                  "{\"predictions\":[[0.0,0.15625,0.3125,0.46875],[0.625,0.78125,0.9375,0.09375]],"
                  "\"routing\":{\"moe\":{\"experts\":[[0,1],[2,3]],"
                  "\"weights\":[[0.75,0.25],[0.75,0.25]]},"
                  "\"blocks.1\":{\"experts\":[[[0],[1]],[[2],[0]]],"
                  "\"weights\":[[[1.0],[1.0]],[[1.0],[1.0]]]}}}");
    request.rows = 1;
    request.probabilities = true;
    check_encoded(&request, &fake.result,
                  "{\"predictions\":[[0.0,0.15625,0.3125,0.46875]],"
                  "\"routing\":{\"moe\":{\"experts\":[[0,1]],\"weights\":[[0.75,0.25]],"
                  "\"probabilities\":[[0.0,0.125,0.25,0.375,0.5]]},"
                  "\"blocks.1\":{\"experts\":[[[0],[1]]],\"weights\":[[[1.0],[1.0]]],"
                  "\"probabilities\":[[[0.0,0.125,0.25],[0.375,0.5,0.625]]]}}}");
}
END_TEST

START_TEST(several_outputs_are_named)
{
    const float sums[4] = {1, 2, 3, 4}, flags[2] = {0, 1};
    const float *lists[] = {sums, flags};
    struct infer_request request = {.signature = &pair_model, .rows = 2, .routing = true};
    check_encoded(&request, &(struct infer_result){.outputs = lists},
                  "{\"predictions\":[{\"sum\":[[1.0,2.0]],\"flag\":0.0},"
                  "{\"sum\":[[3.0,4.0]],\"flag\":1.0}],\"routing\":{}}");
    request.columns = true;
    check_encoded(&request, &(struct infer_result){.outputs = lists},
                  "{\"outputs\":{\"sum\":[[[1.0,2.0]],[[3.0,4.0]]],\"flag\":[0.0,1.0]},"
                  "\"routing\":{}}");
}
END_TEST

START_TEST(answers_are_bounded)
{
    struct fake_result fake;
    fake_result_init(&fake);
    struct infer_request request = {.signature = &digits_model, .rows = 8, .routing = true};
    for (size_t limit = 0; limit < 300; limit++) {
        struct buffer body;
        buffer_init(&body, limit);
        struct error err = ERROR_INIT;
        size_t json_length;
        ck_assert_int_eq(v1_encode(&request, &fake.result, &body, &json_length, &err), -1);
        ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
        buffer_close(&body);
    }
}
END_TEST

START_TEST(every_cut_is_refused)
{
    const char *body = "{\"parameters\":{\"x\":[[1,\"]\"]]},\"instances\":[[1,2,3,4,5,6]]}";
    for (size_t length = 0; length < strlen(body); length++) {
        struct guarded copy = guarded_copy(body, length);
        struct infer_request request;
        const struct infer_body part = {.bytes = copy.text, .length = length};
        ck_assert_int_eq(v1_decode(&digits_model, &part, &test_limits, &request, NULL), -1);
        guarded_free(&copy);
    }
}
END_TEST

START_TEST(documents)
{
    struct buffer body;
    buffer_init(&body, 1 << 10);
    v1_model_ready("digits", true, &body);
    v1_model_status("digits", false, (const char *const[]){"7"}, 1, &body);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, "{\"name\":\"digits\",\"ready\":true}"
                                "{\"name\":\"digits\",\"ready\":false,"
                                "\"model_version_status\":[{\"version\":\"7\",\"state\":"
                                "\"AVAILABLE\",\"status\":{\"error_code\":\"OK\","
                                "\"error_message\":\"\"}}]}");
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/v1", rows_are_the_entries, wrong_rows_are_named, wrong_instances_are_refused,
          wrong_members_are_refused, several_inputs_are_named,
          inputs_are_named_in_objects_and_columns, wrong_objects_are_refused,
          wrong_columns_are_refused, scalar_rows, predictions_and_routing,
          several_outputs_are_named, answers_are_bounded, every_cut_is_refused, documents)

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

static void refused(const char *body, const char *expected)
{
    struct guarded copy;
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(&digits_model, body, &copy, &request, &err) == -1, "%s: accepted", body);
    ck_assert_str_eq(err.text, expected);
    ck_assert_int_eq(err.code, strstr(expected, "limit") ? ERROR_TOO_LARGE : ERROR_INVALID);
    guarded_free(&copy);
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
            "input 'image': instances[0] is a string, expected a list of 6 numbers");
    refused("{\"instances\":[{\"image\":[1,2,3,4,5,6]}]}",
            "input 'image': instances[0] is an object, expected a list of 6 numbers");
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
            "unknown member 'routng', expected 'instances', 'routing', 'tag', 'labels', "
            "'experts', 'signature_name' or "
            "'parameters'");
    refused("{\"inputs\":{\"image\":[[1]]}}",
            "columns under 'inputs' are not supported: send 'instances', one entry per row");
    refused("{\"instances\":[[1]],\"routing\":1}", "'routing' is a number, expected true or false");
    refused("{\"instances\":[[1,2,3,4,5,6]],\"parameters\":{\"x\":[1,,2]}}",
            "malformed JSON at byte 50 (line 1, column 51): unexpected token near ','");
}
END_TEST

START_TEST(models_of_several_inputs_need_v2)
{
    struct guarded copy;
    struct infer_request request;
    struct error err;
    ck_assert_int_eq(decode(&pair_model, "{\"instances\":[[1,2]]}", &copy, &request, &err), -1);
    ck_assert_str_eq(err.text,
                     "model 'pair' has 2 inputs, which V1 instances cannot name: use /v2");
    guarded_free(&copy);
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
    v1_model_status("digits", true, &body);
    v1_model_status("digits", false, &body);
    v1_model_list((const char *const[]){"digits", "a\"b"}, 2, &body);
    v1_model_list(NULL, 0, &body);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, "{\"name\":\"digits\",\"ready\":true}"
                                "{\"name\":\"digits\",\"ready\":false}"
                                "{\"models\":[\"digits\",\"a\\\"b\"]}{\"models\":[]}");
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/v1", rows_are_the_entries, wrong_rows_are_named, wrong_instances_are_refused,
          wrong_members_are_refused, models_of_several_inputs_need_v2, scalar_rows,
          predictions_and_routing, several_outputs_are_named, answers_are_bounded,
          every_cut_is_refused, documents)

/* oip_encode: JSON and binary answers, classification, routing outputs, byte for byte. */
#include <math.h>

#include "proto/oip.h"
#include "test_proto_support.h"

static struct infer_request request_for(const struct signature *signature, size_t rows,
                                        struct infer_output *outputs, size_t count)
{
    return (struct infer_request){
        .signature = signature,
        .rows = rows,
        .outputs = outputs,
        .output_count = count,
    };
}

/* Checks the JSON part and that `binary_bytes` follow it; returns the body for further checks. */
static struct buffer check_answer(const struct infer_request *request,
                                  const struct infer_result *result, const char *expected,
                                  size_t binary_bytes)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    size_t json_length = 77;
    struct error err = ERROR_INIT;
    ck_assert_int_eq(oip_encode(request, result, &body, &json_length, &err), 0);
    ck_assert_uint_eq(json_length, binary_bytes > 0 ? strlen(expected) : 0);
    ck_assert_uint_eq(body.length, strlen(expected) + binary_bytes);
    ck_assert_msg(memcmp(body.data, expected, strlen(expected)) == 0, "%.*s", (int)body.length,
                  body.data);
    return body;
}

START_TEST(json_data_is_flat)
{
    struct fake_result fake;
    fake_result_init(&fake);
    struct infer_output outputs[] = {{.source = INFER_OUTPUT}};
    struct infer_request request = request_for(&digits_model, 2, outputs, 1);
    request.id = (char *)"run \"7\"";
    struct buffer body = check_answer(
        &request, &fake.result,
        "{\"id\":\"run \\\"7\\\"\",\"model_name\":\"digits\",\"model_version\":\"3\",\"outputs\":["
        "{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":[2,4],"
        "\"data\":[0.0,0.15625,0.3125,0.46875,0.625,0.78125,0.9375,0.09375]}]}",
        0);
    buffer_close(&body);
}
END_TEST

START_TEST(binary_follows_the_json)
{
    struct fake_result fake;
    fake_result_init(&fake);
    struct infer_output outputs[] = {
        {.source = INFER_ROUTING_EXPERTS, .index = 0, .binary = true},
        {.source = INFER_ROUTING_WEIGHTS, .index = 0},
        {.source = INFER_OUTPUT, .binary = true},
    };
    struct infer_request request = request_for(&digits_model, 1, outputs, 3);
    struct buffer body =
        check_answer(&request, &fake.result,
                     "{\"model_name\":\"digits\",\"model_version\":\"3\",\"outputs\":["
                     "{\"name\":\"routing.moe.experts\",\"datatype\":\"INT32\",\"shape\":[1,2],"
                     "\"parameters\":{\"binary_data_size\":8}},"
                     "{\"name\":\"routing.moe.weights\",\"datatype\":\"FP32\",\"shape\":[1,2],"
                     "\"data\":[0.75,0.25]},"
                     "{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":[1,4],"
                     "\"parameters\":{\"binary_data_size\":16}}]}",
                     24);
    ck_assert_mem_eq(body.data + body.length - 24, fake.experts[0], 8);
    ck_assert_mem_eq(body.data + body.length - 16, fake.outputs, 16);
    buffer_close(&body);
}
END_TEST

START_TEST(routing_of_positions_has_their_axis)
{
    struct fake_result fake;
    fake_result_init(&fake);
    struct infer_output outputs[] = {{.source = INFER_ROUTING_EXPERTS, .index = 1}};
    struct infer_request request = request_for(&digits_model, 2, outputs, 1);
    struct buffer body = check_answer(
        &request, &fake.result,
        "{\"model_name\":\"digits\",\"model_version\":\"3\",\"outputs\":["
        "{\"name\":\"routing.blocks.1.experts\",\"datatype\":\"INT32\",\"shape\":[2,2,1],"
        "\"data\":[0,1,2,0]}]}",
        0);
    buffer_close(&body);
}
END_TEST

START_TEST(classification_is_best_first)
{
    struct fake_result fake;
    fake_result_init(&fake);
    const float scores[8] = {0.25f, 0.5f, 0.5f, 0.125f, NAN, 1, -1, 2};
    memcpy(fake.outputs, scores, sizeof scores);
    struct infer_output outputs[] = {{.source = INFER_OUTPUT, .classification = 3}};
    struct infer_request request = request_for(&digits_model, 2, outputs, 1);
    struct buffer body =
        check_answer(&request, &fake.result,
                     "{\"model_name\":\"digits\",\"model_version\":\"3\",\"outputs\":["
                     "{\"name\":\"scores\",\"datatype\":\"BYTES\",\"shape\":[2,3],"
                     "\"data\":[\"0.5:1:one\",\"0.5:2:two \\\"2\\\"\",\"0.25:0:zero\","
                     "\"2.0:3:three\",\"1.0:1:one\",\"-1.0:2:two \\\"2\\\"\"]}]}",
                     0);
    buffer_close(&body);
}
END_TEST

/* NaN compares with nothing; it must not disturb the order of the others. */
START_TEST(classification_ranks_nan_last)
{
    const float rows[][4] = {{NAN, 1, -1, 2}, {1, NAN, 3, 2}, {NAN, NAN, -INFINITY, 1}};
    const char *const expected[] = {
        "[\"2.0:3:three\",\"1.0:1:one\",\"-1.0:2:two \\\"2\\\"\",\"null:0:zero\"]",
        "[\"3.0:2:two \\\"2\\\"\",\"2.0:3:three\",\"1.0:0:zero\",\"null:1:one\"]",
        "[\"1.0:3:three\",\"null:0:zero\",\"null:1:one\",\"null:2:two \\\"2\\\"\"]",
    };
    for (size_t i = 0; i < 3; i++) {
        const float *lists[] = {rows[i]};
        struct infer_output outputs[] = {{.source = INFER_OUTPUT, .classification = 4}};
        struct infer_request request = request_for(&digits_model, 1, outputs, 1);
        char answer[512];
        snprintf(answer, sizeof answer,
                 "{\"model_name\":\"digits\",\"model_version\":\"3\",\"outputs\":[{\"name\":"
                 "\"scores\",\"datatype\":\"BYTES\",\"shape\":[1,4],\"data\":%s}]}",
                 expected[i]);
        struct buffer body =
            check_answer(&request, &(struct infer_result){.outputs = lists}, answer, 0);
        buffer_close(&body);
    }
}
END_TEST

START_TEST(classification_in_binary)
{
    struct fake_result fake;
    fake_result_init(&fake);
    const float scores[4] = {0.25f, 0.5f, 0, 0};
    memcpy(fake.outputs, scores, sizeof scores);
    struct infer_output outputs[] = {{.source = INFER_OUTPUT, .classification = 2, .binary = true}};
    struct infer_request request = request_for(&digits_model, 1, outputs, 1);
    struct buffer body =
        check_answer(&request, &fake.result,
                     "{\"model_name\":\"digits\",\"model_version\":\"3\",\"outputs\":["
                     "{\"name\":\"scores\",\"datatype\":\"BYTES\",\"shape\":[1,2],"
                     "\"parameters\":{\"binary_data_size\":28}}]}",
                     28);
    ck_assert_mem_eq(body.data + body.length - 28,
                     "\x09\0\0\0"
                     "0.5:1:one"
                     "\x0b\0\0\0"
                     "0.25:0:zero",
                     28);
    buffer_close(&body);
}
END_TEST

/* Asking for too many classes gives all of them; without labels there are none in the answer. */
START_TEST(classification_is_clipped_and_may_lack_labels)
{
    const float sums[2] = {1, 2}, flags[1] = {1};
    const float *lists[] = {sums, flags};
    const struct infer_result result = {.outputs = lists};
    struct infer_output outputs[] = {
        {.source = INFER_OUTPUT, .index = 0, .classification = 100},
        {.source = INFER_OUTPUT, .index = 1, .classification = 1},
    };
    struct infer_request request = request_for(&pair_model, 1, outputs, 2);
    struct buffer body = check_answer(
        &request, &result,
        "{\"model_name\":\"pair\",\"model_version\":\"1\",\"outputs\":["
        "{\"name\":\"sum\",\"datatype\":\"BYTES\",\"shape\":[1,2],\"data\":[\"2.0:1\",\"1.0:0\"]},"
        "{\"name\":\"flag\",\"datatype\":\"BYTES\",\"shape\":[1,1],\"data\":[\"1.0:0\"]}]}",
        0);
    buffer_close(&body);
}
END_TEST

START_TEST(not_finite_is_null)
{
    const float sums[2] = {NAN, -INFINITY}, flags[1] = {0};
    const float *lists[] = {sums, flags};
    struct infer_output outputs[] = {{.source = INFER_OUTPUT, .index = 0}};
    struct infer_request request = request_for(&pair_model, 1, outputs, 1);
    struct buffer body = check_answer(
        &request, &(struct infer_result){.outputs = lists},
        "{\"model_name\":\"pair\",\"model_version\":\"1\",\"outputs\":["
        "{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[1,1,2],\"data\":[null,null]}]}",
        0);
    buffer_close(&body);
}
END_TEST

START_TEST(answers_are_bounded)
{
    struct fake_result fake;
    fake_result_init(&fake);
    struct infer_output variants[] = {
        {.source = INFER_OUTPUT},
        {.source = INFER_OUTPUT, .binary = true},
        {.source = INFER_OUTPUT, .classification = 4},
        {.source = INFER_OUTPUT, .classification = 4, .binary = true},
    };
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        struct infer_request request = request_for(&digits_model, 8, &variants[i], 1);
        for (size_t limit = 0; limit < 240; limit++) {
            struct buffer body;
            buffer_init(&body, limit);
            size_t json_length;
            struct error err = ERROR_INIT;
            ck_assert_int_eq(oip_encode(&request, &fake.result, &body, &json_length, &err), -1);
            ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
            buffer_close(&body);
        }
    }
}
END_TEST

RUN_TESTS("proto/oip_encode", json_data_is_flat, binary_follows_the_json,
          routing_of_positions_has_their_axis, classification_is_best_first,
          classification_ranks_nan_last, classification_in_binary,
          classification_is_clipped_and_may_lack_labels, not_finite_is_null, answers_are_bounded)

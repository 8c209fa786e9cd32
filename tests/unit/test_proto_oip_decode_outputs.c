/* oip_decode_outputs: which outputs a request asks for, and how. */
#include "proto/oip.h"
#include "test_proto_support.h"

/* Decodes a request of one row for digits_model, with these members after its input. */
static int decode(const char *members, struct infer_request *request, struct error *err)
{
    char body[8192];
    snprintf(body, sizeof body,
             "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,2,3],\"data\":"
             "[1,2,3,4,5,6]}]%s}",
             members);
    struct guarded copy = guarded_text(body);
    *err = (struct error)ERROR_INIT;
    int result = oip_decode(&digits_model, &(struct infer_body){copy.text, copy.length, NULL},
                            &test_limits, request, err);
    guarded_free(&copy); /* outputs refer to the model, not to the body */
    return result;
}

static void refused(const char *members, const char *expected)
{
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(members, &request, &err) == -1, "%s: accepted", members);
    ck_assert_str_eq(err.text, expected);
}

static struct infer_request accepted(const char *members)
{
    struct infer_request request;
    struct error err;
    int result = decode(members, &request, &err);
    ck_assert_msg(result == 0, "%s: %s", members, err.text);
    return request;
}

START_TEST(none_listed_means_the_models_own)
{
    const char *const lists[] = {"", ",\"outputs\":[]", ",\"outputs\":null"};
    for (size_t i = 0; i < 3; i++) {
        struct infer_request request = accepted(lists[i]);
        ck_assert_uint_eq(request.output_count, 1);
        ck_assert_int_eq(request.outputs[0].source, INFER_OUTPUT);
        ck_assert(!request.outputs[0].binary);
        infer_request_close(&request);
    }
}
END_TEST

START_TEST(listed_ones_keep_their_order)
{
    struct infer_request request =
        accepted(",\"outputs\":[{\"name\":\"routing.blocks.1.weights\"},{\"name\":\"scores\"},"
                 "{\"name\":\"routing.moe.experts\"}]");
    ck_assert_uint_eq(request.output_count, 3);
    ck_assert_int_eq(request.outputs[0].source, INFER_ROUTING_WEIGHTS);
    ck_assert_uint_eq(request.outputs[0].index, 1);
    ck_assert_int_eq(request.outputs[1].source, INFER_OUTPUT);
    ck_assert_int_eq(request.outputs[2].source, INFER_ROUTING_EXPERTS);
    ck_assert_uint_eq(request.outputs[2].index, 0);
    infer_request_close(&request);
}
END_TEST

START_TEST(binary_by_default_or_by_output)
{
    struct infer_request request = accepted(",\"parameters\":{\"binary_data_output\":true}");
    ck_assert(request.outputs[0].binary);
    infer_request_close(&request);
    request = accepted(",\"outputs\":[{\"name\":\"scores\"},{\"name\":\"routing.moe.experts\","
                       "\"parameters\":{\"binary_data\":false}}],"
                       "\"parameters\":{\"binary_data_output\":true}");
    ck_assert(request.outputs[0].binary);
    ck_assert(!request.outputs[1].binary);
    infer_request_close(&request);
    request =
        accepted(",\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"binary_data\":true}}]");
    ck_assert(request.outputs[0].binary);
    infer_request_close(&request);
}
END_TEST

START_TEST(classification_is_read)
{
    struct infer_request request =
        accepted(",\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"classification\":3}}]");
    ck_assert_uint_eq(request.outputs[0].classification, 3);
    infer_request_close(&request);
}
END_TEST

START_TEST(wrong_ones_are_refused)
{
    refused(",\"outputs\":{}", "'outputs' is an object, expected a list");
    refused(",\"outputs\":[\"scores\"]", "outputs[0] is a value, expected an object");
    refused(",\"outputs\":[{\"name\":\"scores\"},{}]",
            "outputs[1]: 'name' is missing, expected the name of an output");
    refused(",\"outputs\":[{\"name\":\"nothing\"}]",
            "unknown output 'nothing': model 'digits' has 'scores', 'routing.moe.experts', "
            "'routing.moe.weights', 'routing.blocks.1.experts', 'routing.blocks.1.weights'");
    refused(",\"outputs\":[{\"name\":\"scores\"},{\"name\":\"scores\"}]",
            "output 'scores' is listed twice");
    refused(",\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"binary_data\":1}}]",
            "output 'scores': 'binary_data' is a number, expected true or false");
    refused(",\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"classification\":0.5}}]",
            "output 'scores': 'classification' is 0.5, expected a whole number from 0 to 2^53");
    refused(",\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"shared_memory_region\":\"r\"}}]",
            "output 'scores': shared memory is not supported");
    refused(
        ",\"outputs\":[{\"name\":\"routing.moe.experts\",\"parameters\":{\"classification\":2}}]",
        "output 'routing.moe.experts': routing is not a classification; leave the parameter out");
}
END_TEST

START_TEST(the_list_is_bounded)
{
    char members[4096] = ",\"outputs\":[{\"name\":\"scores\"}";
    for (int i = 0; i < 64; i++)
        strcat(members, ",{\"name\":\"scores\"}");
    strcat(members, "]");
    refused(members, "'outputs' lists 65 outputs, the limit is 64");
}
END_TEST

RUN_TESTS("proto/oip_decode_outputs", none_listed_means_the_models_own,
          listed_ones_keep_their_order, binary_by_default_or_by_output, classification_is_read,
          wrong_ones_are_refused, the_list_is_bounded)

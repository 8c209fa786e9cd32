/* oip_decode: the request as a whole: header, id, parameters, raw bodies. Inputs and outputs have
 * their own tests, and tests/data/protocol has whole exchanges. */
#include "proto/oip.h"
#include "test_proto_support.h"

#define INPUT "\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,2,3],"
#define IMAGE INPUT "\"data\":[1,2,3,4,5,6]}]"

static int decode(struct guarded *copy, const char *header, struct infer_request *request,
                  struct error *err)
{
    *err = (struct error)ERROR_INIT;
    return oip_decode(&digits_model, &(struct infer_body){copy->text, copy->length, header},
                      &test_limits, request, err);
}

static void check_refused(const char *body, const char *header, const char *expected)
{
    struct guarded copy = guarded_text(body);
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(&copy, header, &request, &err) == -1, "%s: accepted", body);
    ck_assert_msg(strstr(err.text, expected) != NULL, "%s: \"%s\" lacks \"%s\"", body, err.text,
                  expected);
    ck_assert_ptr_null(request.inputs); /* nothing left to close */
    ck_assert_ptr_null(request.id);
    guarded_free(&copy);
}

START_TEST(fills_the_request)
{
    struct guarded copy = guarded_text(
        "{\"id\":\"abc\",\"parameters\":{\"timeout\":2500,\"tag\":\"me\",\"priority\":1,\"sequence_"
        "id\":"
        "18446744073709551615,\"sequence_start\":true,\"mine\":[1,2]},\"model_name\":\"x\"," IMAGE
        "}");
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(&copy, NULL, &request, &err) == 0, "%s", err.text);
    ck_assert_ptr_eq(request.signature, &digits_model);
    ck_assert_ptr_eq(request.body, copy.text);
    ck_assert_str_eq(request.id, "abc");
    ck_assert_uint_eq(request.rows, 1);
    ck_assert_uint_eq(request.timeout_us, 2500);
    ck_assert_str_eq(request.tag, "me");
    ck_assert(!request.routing);
    ck_assert_mem_eq(request.inputs[0].data, "[1,2,3,4,5,6]", request.inputs[0].length);
    ck_assert(!request.inputs[0].binary);
    ck_assert_uint_eq(request.output_count, 1);
    ck_assert_int_eq(request.outputs[0].source, INFER_OUTPUT);
    ck_assert(!request.outputs[0].binary);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(members_may_be_absent_or_null)
{
    struct guarded copy =
        guarded_text("{\"id\":\"\",\"parameters\":null,\"outputs\":null," IMAGE "}");
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(&copy, NULL, &request, &err) == 0, "%s", err.text);
    ck_assert_ptr_null(request.id);
    ck_assert_uint_eq(request.timeout_us, 0);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(refuses_wrong_members)
{
    check_refused("{\"id\":7," IMAGE "}", NULL, "'id' is a number, expected a string");
    check_refused("{\"parameters\":[]," IMAGE "}", NULL, "'parameters' is a list, expected an obj");
    check_refused("{\"parameters\":{\"timeout\":-1}," IMAGE "}", NULL,
                  "parameters: 'timeout' is -1");
    check_refused("{\"parameters\":{\"timeout\":\"5\"}," IMAGE "}", NULL, "'timeout' is a string");
    check_refused("{\"parameters\":{\"binary_data_output\":1}," IMAGE "}", NULL,
                  "'binary_data_output' is a number, expected true or false");
    check_refused("{\"parameters\":{\"triton_x\":1}," IMAGE "}", NULL, "'triton_x'");
    check_refused("{}", NULL, "'inputs' is missing in the body, expected a list of input tensors");
    check_refused("{\"inputs\":[]}", NULL, "input 'image' is missing");
    check_refused("{\"unknown\":[1,,2]," IMAGE "}", NULL, "malformed JSON at byte 14");
}
END_TEST

START_TEST(misspelt_members_are_refused)
{
    check_refused("{\"output\":[{\"name\":\"scores\"}]," IMAGE "}", NULL,
                  "'output' is unknown, did you mean 'outputs'?");
    check_refused("{\"ID\":\"a\"," IMAGE "}", NULL, "'ID' is unknown, did you mean 'id'?");
    check_refused("{\"parameters\":{\"priorty\":1}," IMAGE "}", NULL,
                  "parameters: 'priorty' is unknown, did you mean 'priority'?");
    check_refused("{\"parameters\":{\"binary_data_ouput\":true}," IMAGE "}", NULL,
                  "did you mean 'binary_data_output'?");
    check_refused("{\"outputs\":[{\"name\":\"scores\",\"parameter\":{}}]," IMAGE "}", NULL,
                  "did you mean 'parameters'?");
    check_refused("{\"outputs\":[{\"name\":\"scores\",\"parameters\":{\"clasification\":1}}]," IMAGE
                  "}",
                  NULL, "did you mean 'classification'?");
}
END_TEST

/* Of Triton's and MLServer's clients, and of a model of one's own. */
START_TEST(parameters_of_others_are_ignored)
{
    struct guarded copy = guarded_text("{\"parameters\":{\"sequence_id\":1,\"sequence_start\":true,"
                                       "\"sequence_end\":true,\"headers\":{},"
                                       "\"content_type\":\"np\",\"threshold\":0.5,\"tags\":[],"
                                       "\"priorty\":null},\"model_name\":\"m\"," IMAGE "}");
    struct infer_request request;
    struct error err;
    ck_assert_msg(decode(&copy, NULL, &request, &err) == 0, "%s", err.text);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(id_is_bounded)
{
    char body[512];
    for (int bytes = 256; bytes <= 257; bytes++) {
        snprintf(body, sizeof body, "{\"id\":\"%0*d\"," IMAGE "}", bytes, 7);
        struct guarded copy = guarded_text(body);
        struct infer_request request;
        struct error err;
        ck_assert_int_eq(decode(&copy, NULL, &request, &err), bytes == 256 ? 0 : -1);
        infer_request_close(&request);
        guarded_free(&copy);
    }
}
END_TEST

START_TEST(header_length_is_a_number_in_range)
{
    const char *const refused[] = {"",   " 5",  "5 ", "-1",  "+5",
                                   "5x", "0x5", "99", "1e1", "99999999999999999999999999"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        check_refused("{\"inputs\":[]}", refused[i],
                      "expected a number from 0 to the 13 bytes of the body");
    check_refused("{\"inputs\":[]}", "13", "input 'image' is missing");
    check_refused("{\"inputs\":[]}", "012", "malformed JSON at byte 12");
}
END_TEST

START_TEST(bytes_after_the_json_must_belong)
{
    check_refused("{" IMAGE "}1234", "86", "4 bytes after the JSON beyond every input");
}
END_TEST

START_TEST(raw_body_is_one_row)
{
    const float row[6] = {1, 2, 3, 4, 5, 6};
    struct guarded copy = guarded_copy(row, sizeof row);
    struct infer_request request;
    struct error err;
    ck_assert_int_eq(decode(&copy, "0", &request, &err), 0);
    ck_assert_uint_eq(request.rows, 1);
    ck_assert(request.inputs[0].binary);
    ck_assert_ptr_eq(request.inputs[0].data, copy.text);
    ck_assert_uint_eq(request.output_count, 1);
    ck_assert(request.outputs[0].binary);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(raw_body_of_another_size_is_refused)
{
    check_refused("12345678", "0", "it has 8 bytes, model 'digits' has 1 input, one row");
    check_refused("", "0", "it has 0 bytes");
    check_refused("", NULL, "the body is empty");
    struct infer_request request;
    struct error err = ERROR_INIT;
    const struct infer_body raw = {"12345678", 8, "0"};
    ck_assert_int_eq(oip_decode(&pair_model, &raw, &test_limits, &request, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "has 2 inputs"));
}
END_TEST

/* A body cut at any byte is refused, and nothing past it is read. */
START_TEST(every_cut_is_refused)
{
    const char *body = "{\"id\":\"a\\\"b\",\"parameters\":{\"x\":[[1,\"]\"]]}," IMAGE
                       ",\"outputs\":[{\"name\":\"scores\"}]}";
    for (size_t length = 0; length < strlen(body); length++) {
        struct guarded copy = guarded_copy(body, length);
        struct infer_request request;
        struct error err;
        ck_assert_int_eq(decode(&copy, NULL, &request, &err), -1);
        ck_assert_int_eq(err.code, ERROR_INVALID);
        guarded_free(&copy);
    }
}
END_TEST

RUN_TESTS("proto/oip_decode", fills_the_request, members_may_be_absent_or_null,
          refuses_wrong_members, misspelt_members_are_refused, parameters_of_others_are_ignored,
          id_is_bounded, header_length_is_a_number_in_range, bytes_after_the_json_must_belong,
          raw_body_is_one_row, raw_body_of_another_size_is_refused, every_cut_is_refused)

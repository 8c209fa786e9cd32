/* oip_decode_inputs: names, shapes, datatypes and the place of the numbers. */
#include "proto/oip.h"
#include "test_proto_support.h"

/* Decodes {"inputs": <inputs>} followed by `binary_bytes` zeros for a model. */
static int decode(const struct signature *model, const char *inputs, size_t binary_bytes,
                  struct infer_request *request, struct guarded *copy, struct error *err)
{
    char body[2048] = "", header[24];
    int json_bytes = snprintf(body, sizeof body, "{\"inputs\":%s}", inputs);
    memset(body + json_bytes, 0, binary_bytes);
    snprintf(header, sizeof header, "%d", json_bytes);
    *copy = guarded_copy(body, (size_t)json_bytes + binary_bytes);
    *err = (struct error)ERROR_INIT;
    return oip_decode(model, &(struct infer_body){copy->text, copy->length, header}, &test_limits,
                      request, err);
}

static void check_refused(const struct signature *model, const char *inputs, size_t binary_bytes,
                          const char *expected)
{
    struct infer_request request;
    struct guarded copy;
    struct error err;
    ck_assert_msg(decode(model, inputs, binary_bytes, &request, &copy, &err) == -1, "%s: accepted",
                  inputs);
    ck_assert_str_eq(err.text, expected);
    guarded_free(&copy);
}

static void refused(const char *inputs, const char *expected)
{
    check_refused(&digits_model, inputs, 0, expected);
}

#define IMAGE "[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,2,3],"

START_TEST(names_must_match)
{
    refused("{}", "'inputs' is an object, expected a list");
    refused("[1]", "inputs[0] is a value, expected an object");
    refused("[true]", "inputs[0] is a boolean, expected an object");
    refused("[\"image\"]", "inputs[0] is a value, expected an object");
    refused("[{}]", "inputs[0]: 'name' is missing, expected the name of an input");
    refused("[{\"name\":5}]", "inputs[0]: 'name' is a number, expected a string");
    refused("[{\"name\":\"img\"}]", "unknown input 'img': model 'digits' has 'image'");
    check_refused(&pair_model, "[{\"name\":\"x\"}]", 0,
                  "unknown input 'x': model 'pair' has 'left', 'right'");
    refused(IMAGE "\"data\":[1,2,3,4,5,6]},{\"name\":\"image\"}]", "input 'image' is given twice");
    check_refused(&pair_model,
                  "[{\"name\":\"left\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2]}]", 0,
                  "input 'right' is missing");
}
END_TEST

struct bad_shape {
    const char *shape, *expected; /* NULL: whatever the message */
};

static void refused_shape(const struct bad_shape *bad)
{
    char inputs[512];
    struct infer_request request;
    struct guarded copy;
    struct error err;
    snprintf(inputs, sizeof inputs,
             "[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":%s,\"data\":[1]}]", bad->shape);
    ck_assert_int_eq(decode(&digits_model, inputs, 0, &request, &copy, &err), -1);
    if (bad->expected)
        ck_assert_str_eq(err.text, bad->expected);
    guarded_free(&copy);
}

START_TEST(shapes_must_match)
{
    static const struct bad_shape cases[] = {
        {"null", "input 'image': 'shape' is missing, expected a list of whole numbers"},
        {"6", "input 'image': 'shape' is a number, expected a list"},
        {"[]", "input 'image': 'shape' is not a list of whole numbers"},
        {"[true]", "input 'image': 'shape' is not a list of whole numbers"},
        {"[\"1\"]", "input 'image': shape is [\"1\"], expected [rows,1,2,3]"},
        {"[1,6]", "input 'image': shape is [1,6], expected [rows,1,2,3]"},
        {"[1,1,3,2]", "input 'image': shape is [1,1,3,2], expected [rows,1,2,3]"},
        {"[1,1,2,3,1]", "input 'image': shape is [1,1,2,3,1], expected [rows,1,2,3]"},
        {"[1,1,2,3.5]", "input 'image': shape is [1,1,2,3.5], expected [rows,1,2,3]"},
        {"[1.0,1,2,3]", "input 'image': shape is [1.0,1,2,3], expected [rows,1,2,3]"},
        {"[1,1,2,3.0]", "input 'image': shape is [1,1,2,3.0], expected [rows,1,2,3]"},
        {"[1,1,2,3e0]", "input 'image': shape is [1,1,2,3e0], expected [rows,1,2,3]"},
        {"[1.5,1,2,3]", "input 'image': shape is [1.5,1,2,3], expected [rows,1,2,3]"},
        {"[1,1,2,\"3\"]", "input 'image': shape is [1,1,2,\"3\"], expected [rows,1,2,3]"},
        {"[1,1,2,]", "input 'image': shape is [1,1,2,], expected [rows,1,2,3]"},
        {"[1,1,2 3]", "input 'image': shape is [1,1,2 3], expected [rows,1,2,3]"},
        {"[[1,1,2,3]]", "input 'image': shape is [[1,1,2,3]], expected [rows,1,2,3]"},
        {"[1,1,1,1,1,1,1,1,1,1,1,1]",
         "input 'image': shape is [1,1,1,1,1,1,1,1,1,1,1,1], expected [rows,1,2,3]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_shape(&cases[i]);
}
END_TEST

START_TEST(rows_must_fit)
{
    static const struct bad_shape cases[] = {
        {"[0,1,2,3]", "input 'image': empty batch: the shape has 0 rows, expected at least one"},
        {"[-1,1,2,3]", "input 'image': shape is [-1,1,2,3], expected [rows,1,2,3]"},
        {"[9,1,2,3]", "input 'image': the shape has 9 rows, the limit is 8 in one request"},
        {"[1e300,1,2,3]", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_shape(&cases[i]);
}
END_TEST

START_TEST(shapes_may_have_space)
{
    struct infer_request request;
    struct guarded copy;
    struct error err;
    ck_assert_int_eq(decode(&digits_model,
                            "[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[ 2 ,\n1, 2 ,3 "
                            "],\"data\":[1,2,3,4,5,6,7]}]",
                            0, &request, &copy, &err),
                     0);
    ck_assert_uint_eq(request.rows, 2);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(inputs_agree_on_rows)
{
    check_refused(&pair_model,
                  "[{\"name\":\"left\",\"datatype\":\"FP32\",\"shape\":[2,2],\"data\":[1,2,3,4]},"
                  "{\"name\":\"right\",\"datatype\":\"FP32\",\"shape\":[3],\"data\":[1,2,3]}]",
                  0, "input 'right': the shape has 3 rows, the inputs before it have 2");
}
END_TEST

/* A server without a limit on rows must not overflow when it multiplies. */
START_TEST(sizes_cannot_wrap)
{
    const char *body = "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP64\",\"shape\":"
                       "[768614336404564651,1,2,3],\"parameters\":{\"binary_data_size\":32}}]}";
    const struct infer_limits limits = {.max_rows = SIZE_MAX};
    struct infer_request request;
    struct error err = ERROR_INIT;
    const struct infer_body whole = {body, strlen(body), NULL};
    ck_assert_int_eq(oip_decode(&digits_model, &whole, &limits, &request, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "the limit is"));
}
END_TEST

START_TEST(datatypes_are_numbers)
{
    refused("[{\"name\":\"image\"}]",
            "input 'image': 'datatype' is missing, expected FP32 or another type of numbers");
    refused("[{\"name\":\"image\",\"datatype\":\"BYTES\"}]",
            "input 'image': datatype is 'BYTES', expected FP32 or another type of numbers");
    refused("[{\"name\":\"image\",\"datatype\":\"BOOL\"}]",
            "input 'image': datatype is 'BOOL', expected FP32 or another type of numbers");
    refused("[{\"name\":\"image\",\"datatype\":\"float\"}]",
            "input 'image': datatype is 'float', expected FP32 or another type of numbers");
    refused(
        "[{\"name\":\"image\",\"datatype\":\"FP16\",\"shape\":[1,1,2,3],\"data\":[1,2,3,4,5,6]}]",
        "input 'image': FP16 cannot be sent as JSON: send FP32, or binary data");
}
END_TEST

START_TEST(data_is_in_exactly_one_place)
{
    const char *neither = "input 'image': expected exactly one of 'data' and the parameter "
                          "'binary_data_size'";
    refused(IMAGE "\"parameters\":{}}]", neither);
    refused(IMAGE "\"data\":[1],\"parameters\":{\"binary_data_size\":24}}]", neither);
    refused(IMAGE "\"parameters\":{\"shared_memory_region\":\"r\"}}]",
            "input 'image': shared memory is not supported");
    refused(IMAGE "\"data\":{}}]", "input 'image': 'data' is an object, expected a list");
    refused(IMAGE "\"data\":[]}]", "input 'image': 'data' is empty, expected 6 numbers");
    refused(IMAGE "\"data\":[\"1\"]}]",
            "input 'image': 'data' has 5 bytes, too few for the 6 numbers of its shape");
    refused(IMAGE "\"data\":[true]}]",
            "input 'image': 'data' begins with a boolean, expected numbers");
    refused(IMAGE "\"data\":[[],[1]]}]",
            "input 'image': 'data' begins with lists without values, expected numbers");
}
END_TEST

/* Rows determine the memory for the answer, so the body must be long enough for them. */
START_TEST(rows_need_bytes)
{
    refused("[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[8,1,2,3],\"data\":[1,2,3]}]",
            "input 'image': 'data' has 7 bytes, too few for the 48 numbers of its shape");
}
END_TEST

#define BINARY(size) IMAGE "\"parameters\":{\"binary_data_size\":" size "}}]"

START_TEST(binary_sizes_must_match)
{
    check_refused(&digits_model, BINARY("20"), 20,
                  "input 'image': 'binary_data_size' is 20, expected 24 (1 row of 6 FP32)");
    check_refused(
        &digits_model, BINARY("24"), 20,
        "input 'image': 'binary_data_size' is 24, and after the JSON there is room for 20: is "
        "the header Inference-Header-Content-Length right?");
    check_refused(&digits_model, BINARY("24"), 25,
                  "1 byte after the JSON beyond every input's 'binary_data_size'");
    check_refused(
        &digits_model, BINARY("-1"), 0,
        "input 'image': 'binary_data_size' is -1, expected a whole number from 0 to 2^53");
}
END_TEST

/* Binary data follows in the order of the request, not of the model. */
START_TEST(binary_data_is_found)
{
    struct infer_request request;
    struct guarded copy;
    struct error err;
    int result = decode(&pair_model,
                        "[{\"name\":\"right\",\"datatype\":\"INT8\",\"shape\":[2],\"parameters\":{"
                        "\"binary_data_size\":2}},"
                        "{\"name\":\"left\",\"datatype\":\"FP64\",\"shape\":[2,2],\"parameters\":{"
                        "\"binary_data_size\":32}}]",
                        34, &request, &copy, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    const char *tail = copy.text + copy.length - 34;
    ck_assert_ptr_eq(request.inputs[1].data, tail);
    ck_assert_uint_eq(request.inputs[1].length, 2);
    ck_assert_int_eq(request.inputs[1].datatype, DATATYPE_INT8);
    ck_assert_ptr_eq(request.inputs[0].data, tail + 2);
    ck_assert_uint_eq(request.inputs[0].length, 32);
    ck_assert(request.inputs[0].binary && request.inputs[1].binary);
    ck_assert_uint_eq(request.output_count, 2);
    infer_request_close(&request);
    guarded_free(&copy);
}
END_TEST

START_TEST(long_names_do_not_hide_the_message)
{
    char inputs[1024];
    snprintf(inputs, sizeof inputs, "[{\"name\":\"%0700d\"}]", 1);
    struct infer_request request;
    struct guarded copy;
    struct error err;
    ck_assert_int_eq(decode(&digits_model, inputs, 0, &request, &copy, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "': model 'digits' has 'image'"));
    guarded_free(&copy);
}
END_TEST

RUN_TESTS("proto/oip_decode_inputs", names_must_match, shapes_must_match, rows_must_fit,
          shapes_may_have_space, inputs_agree_on_rows, sizes_cannot_wrap, datatypes_are_numbers,
          data_is_in_exactly_one_place, rows_need_bytes, binary_sizes_must_match,
          binary_data_is_found, long_names_do_not_hide_the_message)

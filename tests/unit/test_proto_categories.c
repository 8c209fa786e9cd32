/* infer_reader on inputs of categories: exact integers, whatever datatype they come in. */
#include <math.h>

#include "test_proto_reading.h"

enum { CATEGORIES = INT32_MAX };

static const struct signature_tensor tokens_input = {.name = "tokens",
                                                     .rank = 1,
                                                     .dims = (const size_t[]){2},
                                                     .elements = 2,
                                                     .categories = CATEGORIES};
static const struct signature tokens_model = {
    .model = "tokens", .version = "1", .input_count = 1, .inputs = &tokens_input};

/* Two rows of two tokens. */
static int read_tokens(const void *data, size_t length, bool binary, enum datatype datatype,
                       int32_t tokens[4], struct error *err)
{
    struct reading reading;
    reading_init(&reading, data, length, 2, binary, datatype);
    reading.request.signature = &tokens_model;
    infer_reader_init(&reading.reader, &reading.request, 0);
    int result = infer_reader_rows(&reading.reader, 1, tokens, err);
    if (result == 0)
        result = infer_reader_rows(&reading.reader, 1, tokens + 2, err);
    reading_close(&reading);
    return result;
}

static void check_tokens(const void *data, size_t length, bool binary, enum datatype datatype)
{
    struct error err = ERROR_INIT;
    int32_t tokens[4];
    static const int32_t expected[] = {0, 16777217, 7, CATEGORIES - 1};
    ck_assert_msg(read_tokens(data, length, binary, datatype, tokens, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(tokens, expected, sizeof expected);
}

/* 2^24 + 1 is the first integer that f32 does not hold. */
START_TEST(categories_are_exact_integers)
{
    static const char text[] = "[[0,16777217],[7.0,2147483646]]";
    static const enum datatype datatypes[] = {DATATYPE_FP32, DATATYPE_FP64, DATATYPE_INT32,
                                              DATATYPE_INT64, DATATYPE_UINT32};
    for (size_t i = 0; i < sizeof datatypes / sizeof *datatypes; i++)
        check_tokens(text, strlen(text), false, datatypes[i]);
    const int32_t narrow[] = {0, 16777217, 7, CATEGORIES - 1};
    int64_t wide[4];
    double doubles[4];
    for (size_t i = 0; i < 4; i++)
        doubles[i] = (double)(wide[i] = narrow[i]);
    check_tokens(narrow, sizeof narrow, true, DATATYPE_INT32);
    check_tokens(narrow, sizeof narrow, true, DATATYPE_UINT32);
    check_tokens(wide, sizeof wide, true, DATATYPE_INT64);
    check_tokens(wide, sizeof wide, true, DATATYPE_UINT64);
    check_tokens(doubles, sizeof doubles, true, DATATYPE_FP64);
}
END_TEST

START_TEST(narrow_datatypes_hold_categories_too)
{
    struct error err = ERROR_INIT;
    int32_t tokens[4];
    static const int32_t expected[] = {1, 2, 3, 100};
    const int8_t bytes[] = {1, 2, 3, 100};
    const float floats[] = {1, 2, 3, 100};
    const uint16_t halves[] = {0x3C00, 0x4000, 0x4200, 0x5640};
    ck_assert_int_eq(read_tokens(bytes, 4, true, DATATYPE_INT8, tokens, &err), 0);
    ck_assert_mem_eq(tokens, expected, sizeof expected);
    ck_assert_int_eq(read_tokens(floats, 16, true, DATATYPE_FP32, tokens, &err), 0);
    ck_assert_mem_eq(tokens, expected, sizeof expected);
    ck_assert_int_eq(read_tokens(halves, 8, true, DATATYPE_FP16, tokens, &err), 0);
    ck_assert_mem_eq(tokens, expected, sizeof expected);
}
END_TEST

static void check_not_tokens(const void *data, size_t length, bool binary, enum datatype datatype,
                             const char *expected)
{
    struct error err = ERROR_INIT;
    int32_t tokens[4];
    ck_assert_int_eq(read_tokens(data, length, binary, datatype, tokens, &err), -1);
    ck_assert_msg(strncmp(err.text, expected, strlen(expected)) == 0, "%s, expected %s", err.text,
                  expected);
}

START_TEST(what_is_not_a_category_is_refused)
{
#define IS "input 'tokens': element 1 of row 1 is "
    static const struct {
        const char *text;
        enum datatype datatype;
        const char *expected;
    } cases[] = {
        {"[[1,2],[3,2147483647]]", DATATYPE_INT64, IS "2147483647, expected a category: an "},
        {"[[1,2],[3,-1]]", DATATYPE_INT32, IS "-1, expected a category"},
        {"[[1,2],[3,4.5]]", DATATYPE_FP32, IS "4.5, expected a category"},
        {"[[1,2],[3,200]]", DATATYPE_INT8, "input 'tokens': data[1][1] is '200' at byte "},
        {"[[1,2],[3,x]]", DATATYPE_INT32, "input 'tokens': data[1][1] is 'x' at byte "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_not_tokens(cases[i].text, strlen(cases[i].text), false, cases[i].datatype,
                         cases[i].expected);
    const float nan[] = {1, 2, 3, NAN};
    const int64_t wide[] = {1, 2, 3, INT64_MIN};
    check_not_tokens(nan, sizeof nan, true, DATATYPE_FP32, IS "nan, expected a category");
    check_not_tokens(wide, sizeof wide, true, DATATYPE_INT64, IS "-9.2233");
#undef IS
}
END_TEST

RUN_TESTS("proto/categories", categories_are_exact_integers, narrow_datatypes_hold_categories_too,
          what_is_not_a_category_is_refused)

/* infer_reader: numbers from nested and flat lists, in any portions, and the messages for wrong
 * ones. */
#include <math.h>

#include "test_proto_reading.h"

/* Reads `rows` rows of 1..6, 7..12, ... in portions of `portion` rows. */
static void check_counting(const char *text, size_t rows, size_t portion)
{
    struct reading reading;
    reading_init(&reading, text, strlen(text), rows, false, DATATYPE_FP32);
    float values[8 * 6];
    struct error err = ERROR_INIT;
    for (size_t done = 0; done < rows;) {
        size_t count = rows - done < portion ? rows - done : portion;
        int result = infer_reader_rows(&reading.reader, count, values + done * 6, &err);
        ck_assert_msg(result == 0, "%s: %s", text, err.text);
        done += count;
    }
    for (size_t i = 0; i < rows * 6; i++)
        ck_assert(values[i] == (float)(i + 1));
    ck_assert_uint_eq(reading.reader.elements_left, 0);
    reading_close(&reading);
}

static void check_error(const char *text, size_t rows, enum datatype datatype, const char *expected)
{
    struct reading reading;
    reading_init(&reading, text, strlen(text), rows, false, datatype);
    float values[8 * 6];
    struct error err = ERROR_INIT;
    ck_assert_msg(infer_reader_rows(&reading.reader, rows, values, &err) == -1, "%s: accepted",
                  text);
    ck_assert_str_eq(err.text, expected);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    reading_close(&reading);
}

START_TEST(reads_nested_lists)
{
    check_counting("[[[[1,2,3],[4,5,6]]]]", 1, 1);
    check_counting("[ [ [\t[ 1 , 2 ,3 ]\n,[4,5,6] ]\r ] ]", 1, 1);
    check_counting("[[[[1,2,3],[4,5,6]]],[[[7,8,9],[10,11,12]]]]", 2, 2);
    check_counting("[[[[1.0,2e0,3],[4,0.5e1,6]]]]", 1, 1);
}
END_TEST

START_TEST(reads_flat_lists_at_any_level)
{
    check_counting("[1,2,3,4,5,6]", 1, 1);
    check_counting("[1,2,3,4,5,6,7,8,9,10,11,12]", 2, 2);
    check_counting("[[1,2,3,4,5,6],[7,8,9,10,11,12]]", 2, 2);
    check_counting("[[[1,2,3,4,5,6]],[7,8,9,10,11,12]]", 2, 2);
    check_counting("[[[[1,2,3],[4,5,6]]],[[7,8,9,10,11,12]]]", 2, 2);
}
END_TEST

/* A batch may have room for fewer rows than a request has. */
START_TEST(reads_in_portions)
{
    const char *nested = "[[[[1,2,3],[4,5,6]]],[7,8,9,10,11,12],[[[13,14,15],[16,17,18]]]]";
    const char *flat = "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18]";
    for (size_t portion = 1; portion <= 3; portion++) {
        check_counting(nested, 3, portion);
        check_counting(flat, 3, portion);
    }
}
END_TEST

START_TEST(counts_must_fit)
{
    check_error("[1,2,3]", 1, DATATYPE_FP32,
                "input 'image': data has 3 numbers, expected 6 (shape [1,1,2,3])");
    check_error("[1,2,3,4,5,6,7]", 1, DATATYPE_FP32,
                "input 'image': data has 7 numbers, expected 6 (shape [1,1,2,3])");
    check_error("[[1,2,3,4,5]]", 1, DATATYPE_FP32,
                "input 'image': data[0] has 5 numbers, expected 6 (shape [1,2,3])");
    check_error("[[1,2,3,4,5,6],[1,2]]", 2, DATATYPE_FP32,
                "input 'image': data[1] has 2 numbers, expected 6 (shape [1,2,3])");
    check_error("[[1,2,3,4,5,6],[]]", 2, DATATYPE_FP32,
                "input 'image': data[1] has 0 numbers, expected 6 (shape [1,2,3])");
    check_error("[[[[1,2,3],[4,5]]]]", 1, DATATYPE_FP32,
                "input 'image': data[0][0][1] has 2 numbers, expected 3 (shape [3])");
    check_error("[[[[1,2,3]]]]", 1, DATATYPE_FP32,
                "input 'image': data[0][0] has 1 list, expected 2 (shape [2,3])");
    check_error("[[[[1,2,3],[4,5,6],[7,8,9]]]]", 1, DATATYPE_FP32,
                "input 'image': data[0][0] has 3 lists, expected 2 (shape [2,3])");
    check_error("[[1,2,3,4,5,6]]", 2, DATATYPE_FP32,
                "input 'image': data has 1 list, expected 2 (shape [2,1,2,3])");
    check_error("[[1,2,3,4,5,6],[1,2,3,4,5,6]]", 1, DATATYPE_FP32,
                "input 'image': data has 2 lists, expected 1 (shape [1,1,2,3])");
}
END_TEST

START_TEST(entries_must_be_numbers)
{
    check_error(
        "[1,2,\"abc\",4,5,6]", 1, DATATYPE_FP32,
        "input 'image': data[2] is '\"abc\"' at byte 5, expected a number that FP32 can hold");
    check_error("[[1,2,null,4,5,6]]", 1, DATATYPE_FP32,
                "input 'image': element 2 of row 0 is null, which the model has no value for "
                "(\"missing\" of "
                "its input)");
    check_error(
        "[[1,NaN,3,4,5,6]]", 1, DATATYPE_FP32,
        "input 'image': data[0][1] is 'NaN' at byte 4, expected a number that FP32 can hold");
    check_error(
        "[[1,-Infinity,3,4,5,6]]", 1, DATATYPE_FP32,
        "input 'image': data[0][1] is '-Infinity' at byte 4, expected a number that FP32 can "
        "hold");
    check_error("[1,1e39,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '1e39' at byte 3, expected a number that FP32 can hold");
    check_error(
        "[1,1e999,3,4,5,6]", 1, DATATYPE_FP64,
        "input 'image': data[1] is '1e999' at byte 3, expected a number that FP32 can hold");
    check_error("[1,1e39,3,4,5,6]", 1, DATATYPE_FP64,
                "input 'image': data[1] is '1e39' at byte 3, expected a number that FP32 can hold");
    check_error("[1,01,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '01' at byte 3, expected a number that FP32 can hold");
    check_error("[1,+1,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '+1' at byte 3, expected a number that FP32 can hold");
    check_error("[1,.5,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '.5' at byte 3, expected a number that FP32 can hold");
    check_error("[1,1.,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '1.' at byte 3, expected a number that FP32 can hold");
}
END_TEST

START_TEST(long_excerpts_are_cut)
{
    check_error("[\"a very long string that nobody needs to see whole\",2,3,4,5,6]", 1,
                DATATYPE_FP32,
                "input 'image': data[0] is '\"a' at byte 1, expected a number that FP32 can hold");
    check_error("[1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,2,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is 'xxxxxxxxxxxxxxxxxxxxxxxx' at byte 2, expected a comma");
}
END_TEST

START_TEST(punctuation_must_fit)
{
    check_error("[1 2,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '2' at byte 3, expected a comma");
    check_error("[1,,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is ',' at byte 3, expected a number that FP32 can hold");
    check_error("[,1,3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[0] is ',' at byte 1, expected a number that FP32 can hold");
    check_error("[[1,2,3,4,5,6] [1,2,3,4,5,6]]", 2, DATATYPE_FP32,
                "input 'image': data[1] is '[' at byte 15, expected a comma");
    check_error("[[1,2,3,4,5,6],7]", 2, DATATYPE_FP32,
                "input 'image': data[1] is '7' at byte 15, expected a list");
    check_error("[1,[2],3,4,5,6]", 1, DATATYPE_FP32,
                "input 'image': data[1] is '[' at byte 3, expected a number that FP32 can hold");
    check_error(
        "[[[[[1,2,3]]]]]", 1, DATATYPE_FP32,
        "input 'image': data[0][0][0][0] is '[' at byte 4, expected a number: the lists are "
        "nested too deeply");
}
END_TEST

START_TEST(values_must_fit_the_datatype)
{
    check_error("[1,300,3,4,5,6]", 1, DATATYPE_UINT8,
                "input 'image': data[1] is '300' at byte 3, expected a number that UINT8 can hold");
    check_error("[1,-1,3,4,5,6]", 1, DATATYPE_UINT8,
                "input 'image': data[1] is '-1' at byte 3, expected a number that UINT8 can hold");
    check_error("[1,1.5,3,4,5,6]", 1, DATATYPE_INT32,
                "input 'image': data[1] is '1.5' at byte 3, expected a number that INT32 can hold");
}
END_TEST

/* A row has more numbers than are checked together. */
enum { LONG_ROW = 1000 };

static const struct signature_tensor long_input = {
    .name = "row", .rank = 1, .dims = (const size_t[]){LONG_ROW}, .elements = LONG_ROW};
static const struct signature long_model = {
    .model = "long", .version = "1", .input_count = 1, .inputs = &long_input};

/* Reads [[0,1,2,...]], with `odd` in the place of the number `at`, as one row. */
static int read_long_row(const char *odd, int at, enum datatype datatype, float *values,
                         struct error *err)
{
    static char text[8 * LONG_ROW];
    int used = snprintf(text, sizeof text, "[");
    for (int i = 0; i < LONG_ROW; i++) {
        used += snprintf(text + used, sizeof text - (size_t)used, "%c", i > 0 ? ',' : '[');
        used += i == at ? snprintf(text + used, sizeof text - (size_t)used, "%s", odd)
                        : snprintf(text + used, sizeof text - (size_t)used, "%d", i % 100);
    }
    snprintf(text + used, sizeof text - (size_t)used, "]]");
    struct guarded copy = guarded_text(text);
    struct infer_input input = {
        .where = "data", .data = copy.text, .length = copy.length, .datatype = datatype};
    struct infer_request request = {
        .signature = &long_model, .body = copy.text, .rows = 1, .inputs = &input};
    struct infer_reader reader;
    infer_reader_init(&reader, &request, 0);
    int result = infer_reader_rows(&reader, 1, values, err);
    guarded_free(&copy);
    return result;
}

START_TEST(reads_long_rows)
{
    static const enum datatype datatypes[] = {DATATYPE_FP32,  DATATYPE_FP64,  DATATYPE_FP16,
                                              DATATYPE_BF16,  DATATYPE_INT8,  DATATYPE_UINT8,
                                              DATATYPE_INT64, DATATYPE_UINT16};
    float values[LONG_ROW];
    for (size_t i = 0; i < sizeof datatypes / sizeof *datatypes; i++)
        for (int at = 0; at < LONG_ROW; at += 37) {
            struct error err = ERROR_INIT;
            ck_assert_msg(read_long_row("-0", at, datatypes[i], values, &err) == 0, "%s", err.text);
            for (int k = 0; k < LONG_ROW; k++)
                ck_assert(values[k] == (k == at ? 0 : (float)(k % 100)));
        }
}
END_TEST

START_TEST(finds_what_does_not_fit_in_long_rows)
{
    static const struct {
        enum datatype datatype;
        const char *holds, *too_much;
    } cases[] = {
        {DATATYPE_FP32, "3.4028235677973362e38", "-3.4028235677973366e38"},
        {DATATYPE_FP64, "-3.4028235e38", "1e300"},
        {DATATYPE_FP16, "65519.99", "-65520"},
        {DATATYPE_BF16, "3.39e38", "3.4e38"},
        {DATATYPE_UINT8, "255", "255.5"},
        {DATATYPE_INT8, "-128", "-129"},
        {DATATYPE_INT32, "2147483647", "0.25"},
    };
    float values[LONG_ROW];
    char expected[200];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int at = 0; at < LONG_ROW; at += 51) {
            struct error err = ERROR_INIT;
            ck_assert_int_eq(read_long_row(cases[i].holds, at, cases[i].datatype, values, &err), 0);
            ck_assert(values[at] == (float)strtod(cases[i].holds, NULL));
            ck_assert_int_eq(read_long_row(cases[i].too_much, at, cases[i].datatype, values, &err),
                             -1);
            /* The numbers before it have one digit and two. */
            int byte = 2 + 3 * at - at / 100 * 10 - (at % 100 < 10 ? at % 100 : 10);
            snprintf(expected, sizeof expected, "input 'row': data[0][%d] is '%s' at byte %d,", at,
                     cases[i].too_much, byte);
            ck_assert_msg(strncmp(err.text, expected, strlen(expected)) == 0, "%s, expected %s",
                          err.text, expected);
        }
}
END_TEST

START_TEST(every_cut_is_refused)
{
    /* Brackets always match in a literal that reaches the reader, but it must not rely on that. */
    const char *text = "[[[[1,2,3],[4,5,6]]],[7,8,9,10,11,12]]";
    for (size_t length = 1; length < strlen(text); length++) {
        struct reading reading;
        reading_init(&reading, text, length, 2, false, DATATYPE_FP32);
        float values[12];
        struct error err = ERROR_INIT;
        ck_assert_int_eq(infer_reader_rows(&reading.reader, 2, values, &err), -1);
        reading_close(&reading);
    }
}
END_TEST

START_TEST(reads_scalars)
{
    const char *text = "[1,2,3]";
    struct guarded copy = guarded_text(text);
    struct infer_input inputs[2] = {
        {0},
        {.where = "data", .data = copy.text, .length = copy.length, .datatype = DATATYPE_FP32}};
    struct infer_request request = {
        .signature = &pair_model, .body = copy.text, .rows = 3, .inputs = inputs};
    struct infer_reader reader;
    infer_reader_init(&reader, &request, 1);
    float values[3];
    ck_assert_int_eq(infer_reader_rows(&reader, 1, values, NULL), 0);
    ck_assert_int_eq(infer_reader_rows(&reader, 2, values + 1, NULL), 0);
    ck_assert(values[0] == 1 && values[1] == 2 && values[2] == 3);
    guarded_free(&copy);
}
END_TEST

START_TEST(reads_binary)
{
    float numbers[12], values[12];
    for (int i = 0; i < 12; i++)
        numbers[i] = (float)i / 4;
    struct reading reading;
    reading_init(&reading, numbers, sizeof numbers, 2, true, DATATYPE_FP32);
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 1, values, NULL), 0);
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 1, values + 6, NULL), 0);
    ck_assert_mem_eq(values, numbers, sizeof numbers);
    reading_close(&reading);

    uint8_t bytes[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 254, 255};
    reading_init(&reading, bytes, sizeof bytes, 2, true, DATATYPE_UINT8);
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 2, values, NULL), 0);
    for (int i = 0; i < 12; i++)
        ck_assert(values[i] == bytes[i]);
    reading_close(&reading);
}
END_TEST

START_TEST(binary_must_be_finite)
{
    float numbers[12] = {0}, values[12];
    numbers[10] = NAN;
    struct reading reading;
    reading_init(&reading, numbers, sizeof numbers, 2, true, DATATYPE_FP32);
    struct error err = ERROR_INIT;
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 1, values, &err), 0);
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 1, values, &err), -1);
    ck_assert_str_eq(err.text,
                     "input 'image': element 4 of row 1 is not a finite number that FP32 can hold");
    reading_close(&reading);
}
END_TEST

START_TEST(binary_may_be_anything_where_that_is_accepted)
{
    static const float odd[] = {1, NAN, INFINITY, -INFINITY, 2, -NAN};
    double numbers[12];
    float values[12];
    for (int i = 0; i < 12; i++)
        numbers[i] = (double)odd[i % 6];
    struct reading reading;
    struct error err = ERROR_INIT;
    reading_init(&reading, numbers, sizeof numbers, 2, true, DATATYPE_FP64);
    reading.request.non_finite = true;
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 2, values, &err), 0);
    for (int i = 0; i < 12; i++)
        ck_assert(isnan(odd[i % 6]) ? isnan(values[i]) : values[i] == odd[i % 6]);
    reading_close(&reading);

    numbers[9] = -1e39; /* finite, but not in FP32 */
    reading_init(&reading, numbers, sizeof numbers, 2, true, DATATYPE_FP64);
    reading.request.non_finite = true;
    ck_assert_int_eq(infer_reader_rows(&reading.reader, 2, values, &err), -1);
    ck_assert_str_eq(err.text,
                     "input 'image': element 3 of row 1 is not a number that FP32 can hold");
    reading_close(&reading);
}
END_TEST

/* Beyond 2^53 a double may not be the integer that was written. */
START_TEST(large_integers_are_read_from_their_digits)
{
    static const struct {
        enum datatype datatype;
        const char *text;
        float value; /* 0: refused */
    } cases[] = {
        {DATATYPE_INT64, "9223372036854775807", 0x1p63f},
        {DATATYPE_INT64, "9223372036854775808", 0},
        {DATATYPE_INT64, "-9223372036854775808", -0x1p63f},
        {DATATYPE_INT64, "-9223372036854775809", 0},
        {DATATYPE_INT64, "9007199254740993", 0x1p53f},
        {DATATYPE_INT64, "9007199254740993.5", 0},
        {DATATYPE_INT64, "9007199254740992e0", 0},
        {DATATYPE_UINT64, "18446744073709551615", 0x1p64f},
        {DATATYPE_UINT64, "18446744073709551616", 0},
        {DATATYPE_UINT64, "-9223372036854775808", 0},
        {DATATYPE_UINT64, "99999999999999999999999", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[128];
        float values[6] = {0};
        struct reading reading;
        struct error err = ERROR_INIT;
        snprintf(text, sizeof text, "[[1,2,%s,4 , %s ,6]]", cases[i].text, cases[i].text);
        reading_init(&reading, text, strlen(text), 1, false, cases[i].datatype);
        int result = infer_reader_rows(&reading.reader, 1, values, &err);
        ck_assert_msg(result == (cases[i].value == 0 ? -1 : 0), "%s: %s", text, err.text);
        if (result == 0)
            for (size_t k = 0; k < 6; k++)
                ck_assert(values[k] == (k % 2 == 0 && k > 0 ? cases[i].value : (float)(k + 1)));
        else
            ck_assert_ptr_nonnull(strstr(err.text, "expected a number that"));
        reading_close(&reading);
    }
}
END_TEST

RUN_TESTS("proto/infer_reader", large_integers_are_read_from_their_digits, reads_nested_lists,
          reads_flat_lists_at_any_level, reads_in_portions, counts_must_fit,
          entries_must_be_numbers, long_excerpts_are_cut, punctuation_must_fit,
          values_must_fit_the_datatype, reads_long_rows, finds_what_does_not_fit_in_long_rows,
          every_cut_is_refused, reads_scalars, reads_binary, binary_must_be_finite,
          binary_may_be_anything_where_that_is_accepted)

/* Files of rows: what fits a model, and what is refused with its reason. */
#include <string.h>

#include "clients/c/moectl/inputs.h"
#include "support.h"

static const struct moed_client_tensor INPUTS[] = {
    {"x", MOED_CLIENT_FP32, 3, {-1, 2, 3}, NULL, 0, 0},
    {"job", MOED_CLIENT_INT32, 2, {-1, 1}, NULL, 0, 7},
};

static char file[1 << 16];

/* A .npy file of version 1 with that head and so many bytes of elements, 0, 1, 2, ... */
static size_t npy(const char *head, size_t bytes)
{
    size_t length = strlen(head);
    memcpy(file, "\x93NUMPY\1\0", 8);
    file[8] = (char)(length & 0xFF);
    file[9] = (char)(length >> 8);
    memcpy(file + 10, head, length);
    for (size_t i = 0; i < bytes; i++)
        file[10 + length + i] = (char)i;
    return 10 + length + bytes;
}

static void accepted(struct inputs *inputs, size_t count, const char *data, size_t length)
{
    const struct moed_client_model model = {.name = "m", .inputs = INPUTS, .input_count = count};
    struct moed_client_error err = {0};
    ck_assert_msg(inputs_parse(inputs, &model, data, length, &err) == 0, "%s", err.text);
}

static void refused(size_t count, const char *data, size_t length, const char *part)
{
    const struct moed_client_model model = {.name = "m", .inputs = INPUTS, .input_count = count};
    struct moed_client_error err = {0};
    struct inputs inputs;
    ck_assert_int_eq(inputs_parse(&inputs, &model, data, length, &err), -1);
    ck_assert_msg(strstr(err.text, part) != NULL, "%s", err.text);
}

static void check_npy(const char *head, size_t bytes, size_t rows)
{
    struct inputs inputs;
    accepted(&inputs, 1, file, npy(head, bytes));
    ck_assert_uint_eq(inputs.rows, rows);
    ck_assert_int_eq(inputs.tensors[0].dims[0], (int64_t)rows);
    ck_assert_uint_eq(inputs.tensors[0].bytes, bytes);
    inputs_close(&inputs);
}

START_TEST(npy_in_the_models_shape_or_flat)
{
    check_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2, 3), }   \n", 48, 2);
    check_npy("{'shape':(2,6),\"descr\":'<f8','fortran_order':False}", 96, 2);
    check_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (12,), }", 12, 2);
    check_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2, 3), }", 48, 1);
}
END_TEST

START_TEST(npy_that_cannot_be)
{
#define REFUSE(head, bytes, part) refused(1, file, npy(head, bytes), part)
    REFUSE("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 6), }", 47,
           "47 bytes of elements");
    REFUSE("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }", 4,
           "-1");
    REFUSE("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 6), }", 48, "ascontiguousarray");
    REFUSE("{'descr': '>f4', 'fortran_order': False, 'shape': (6,), }", 24, "'>f4'");
    REFUSE("{'descr': '|O', 'fortran_order': False, 'shape': (6,), }", 24, "'|O'");
    REFUSE("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }", 24, "structured");
    REFUSE("{'descr': '<f4', 'shape': (-6,), }", 24, "damaged");
    REFUSE("{'descr': '<f4', 'shape': (6", 0, "damaged");
    REFUSE("{'descr': '<f4", 0, "damaged");
    REFUSE("{'shape': (6,), }", 24, "elements of type ''");
    REFUSE("{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }", 28,
           "expected rows of 6 numbers");
    REFUSE("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 6), }", 0,
           "expected rows of 6 numbers");
    REFUSE("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }", 48, "got 3 rows of 4");
    size_t length = npy("{}", 0);
    file[8] = 99;
    refused(1, file, length, "longer than the file");
    file[6] = 4;
    refused(1, file, length, "version");
    refused(1, file, 7, "version");
}
END_TEST

START_TEST(json_in_every_form)
{
    static const char *const ONE[] = {
        "[[1,2,3,4,5,6],[1,2,3,4,5,6]]", "[[[1,2,3],[4,5,6]],[[1,2,3],[4,5,6]]]",
        "[1,2,3,4,5,6,1,2,3,4,5,6]", "{\"instances\": [[1,2,3,4,5,6],[1,2,3,4,5,6]]}",
        "{\"x\": [[1,2,3,4,5,6],[1,2,3,4,5,6]]}"};
    static const char *const TWO[] = {
        "{\"x\": [[1,2,3,4,5,6],[1,2,3,4,5,6]], \"job\": [0, 1]}",
        "{\"inputs\": [{\"name\": \"job\", \"data\": [[0], [1]]}, {\"name\": \"x\", \"shape\": "
        "[2,2,3], \"data\": [1,2,3,4,5,6,1,2,3,4,5,6]}]}"};
    struct inputs inputs;
    for (size_t i = 0; i < sizeof ONE / sizeof *ONE; i++) {
        accepted(&inputs, 1, ONE[i], strlen(ONE[i]));
        ck_assert_uint_eq(inputs.rows, 2);
        ck_assert(((const double *)inputs.tensors[0].data)[7] == 2);
        inputs_close(&inputs);
    }
    for (size_t i = 0; i < sizeof TWO / sizeof *TWO; i++) {
        accepted(&inputs, 2, TWO[i], strlen(TWO[i]));
        ck_assert(((const double *)inputs.tensors[1].data)[1] == 1);
        inputs_close(&inputs);
    }
}
END_TEST

START_TEST(json_that_cannot_be)
{
#define REFUSE_JSON(count, text, part) refused(count, text, strlen(text), part)
    REFUSE_JSON(1, "", "neither .npy nor .npz");
    REFUSE_JSON(1, "[[1,2", "line 1");
    REFUSE_JSON(1, "[]", "expected rows of 6 numbers");
    REFUSE_JSON(1, "[[1,2,3,4,5,\"6\"]]", "expected a list of rows");
    REFUSE_JSON(1, "{}", "no rows");
    REFUSE_JSON(1, "[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", "expected a list of rows");
    REFUSE_JSON(2, "{\"x\": [1,2,3,4,5,6]}", "no array for input 'job'");
    REFUSE_JSON(2, "{\"x\": [1,2,3,4,5,6], \"job\": [1, 2]}", "'job' has 2 rows, 'x' 1");
    REFUSE_JSON(2, "{\"inputs\": [{\"name\": \"x\"}]}", "inputs[0]");
}
END_TEST

START_TEST(archives_that_lie)
{
    static const char ZIP[] = "PK\3\4 and nothing else";
    refused(1, ZIP, sizeof ZIP - 1, "damaged");
    memset(file, 0, 100);
    memcpy(file, "PK\3\4", 4);
    memcpy(file + 78, "PK\5\6", 4);
    refused(1, file, 100, "0 arrays");
    file[78 + 10] = 1;
    file[78 + 16] = (char)0xF0; /* the directory begins behind the archive */
    refused(1, file, 100, "damaged");
}
END_TEST

/* An entry of 2 bytes that would be 512 MiB, as no deflate packs them. */
START_TEST(archives_that_claim_too_much)
{
    enum { DIRECTORY = 32, END = DIRECTORY + 46 };
    memset(file, 0, 100);
    memcpy(file, "PK\3\4", 4);
    memcpy(file + DIRECTORY, "PK\1\2", 4);
    file[DIRECTORY + 10] = 8; /* deflated */
    file[DIRECTORY + 20] = 2;
    file[DIRECTORY + 27] = 32;
    memcpy(file + END, "PK\5\6", 4);
    file[END + 10] = 1;
    file[END + 16] = DIRECTORY;
    refused(1, file, END + 22, "too large");
}
END_TEST

START_TEST(parts_of_rows)
{
    struct inputs inputs;
    struct moed_client_tensor part[1];
    accepted(&inputs, 1, file,
             npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 6), }", 18));
    inputs_slice(&inputs, 1, 2, part);
    ck_assert_int_eq(part[0].dims[0], 2);
    ck_assert_uint_eq(part[0].bytes, 12);
    ck_assert_int_eq(*(const char *)part[0].data, 6);
    inputs_close(&inputs);
}
END_TEST

TEST_MAIN("moectl rows", npy_in_the_models_shape_or_flat, npy_that_cannot_be, json_in_every_form,
          json_that_cannot_be, archives_that_lie, archives_that_claim_too_much, parts_of_rows)

/* datatype: names, ranges, and conversion to f32 from any alignment. */
#include <float.h>
#include <math.h>

#include "proto/datatype.h"
#include "test_proto_support.h"

START_TEST(names_and_sizes)
{
    ck_assert_int_eq(datatype_from_name("FP32"), DATATYPE_FP32);
    ck_assert_int_eq(datatype_from_name("BYTES"), DATATYPE_BYTES);
    ck_assert_int_eq(datatype_from_name("fp32"), DATATYPE_COUNT);
    ck_assert_int_eq(datatype_from_name(""), DATATYPE_COUNT);
    ck_assert_str_eq(datatype_name(DATATYPE_BF16), "BF16");
    ck_assert_uint_eq(datatype_bytes(DATATYPE_INT64), 8);
    ck_assert_uint_eq(datatype_bytes(DATATYPE_BYTES), 0);
    for (int i = 0; i < DATATYPE_COUNT; i++)
        ck_assert_int_eq(datatype_from_name(datatype_name((enum datatype)i)), i);
}
END_TEST

START_TEST(numeric_types)
{
    ck_assert(!datatype_is_numeric(DATATYPE_BOOL));
    ck_assert(!datatype_is_numeric(DATATYPE_BYTES));
    ck_assert(!datatype_is_numeric(DATATYPE_COUNT));
    for (int i = DATATYPE_UINT8; i <= DATATYPE_FP64; i++)
        ck_assert(datatype_is_numeric((enum datatype)i));
}
END_TEST

static const struct {
    enum datatype datatype;
    double lowest, highest, too_low, too_high;
} ranges[] = {
    {DATATYPE_BOOL, 0, 1, -1, 2},
    {DATATYPE_UINT8, 0, 255, -1, 256},
    {DATATYPE_UINT16, 0, 65535, -1, 65536},
    {DATATYPE_UINT32, 0, 4294967295.0, -1, 4294967296.0},
    {DATATYPE_UINT64, 0, 18446744073709549568.0, -1, 18446744073709551616.0},
    {DATATYPE_INT8, -128, 127, -129, 128},
    {DATATYPE_INT16, -32768, 32767, -32769, 32768},
    {DATATYPE_INT32, -2147483648.0, 2147483647.0, -2147483649.0, 2147483648.0},
    {DATATYPE_INT64, -9223372036854775808.0, 9223372036854774784.0, -9223372036854777856.0,
     9223372036854775808.0},
    {DATATYPE_FP16, -65519, 65519.9, -65520, 65520},
    {DATATYPE_BF16, -3.38e38, 3.38e38, -3.4e38, 3.4e38},
    {DATATYPE_FP32, -FLT_MAX, FLT_MAX, -3.4028236e38, 3.4028236e38},
    {DATATYPE_FP64, -DBL_MAX, DBL_MAX, -INFINITY, INFINITY},
};

START_TEST(ranges_are_exact)
{
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        enum datatype datatype = ranges[i].datatype;
        ck_assert_msg(datatype_holds(datatype, ranges[i].lowest), "%s", datatype_name(datatype));
        ck_assert_msg(datatype_holds(datatype, ranges[i].highest), "%s", datatype_name(datatype));
        ck_assert_msg(!datatype_holds(datatype, ranges[i].too_low), "%s", datatype_name(datatype));
        ck_assert_msg(!datatype_holds(datatype, ranges[i].too_high), "%s", datatype_name(datatype));
        ck_assert_msg(!datatype_holds(datatype, NAN), "%s", datatype_name(datatype));
    }
    ck_assert(!datatype_holds(DATATYPE_BYTES, 0));
}
END_TEST

START_TEST(integers_have_no_fraction)
{
    for (int i = DATATYPE_UINT8; i <= DATATYPE_INT64; i++)
        ck_assert(!datatype_holds((enum datatype)i, 1.5));
    ck_assert(datatype_holds(DATATYPE_FP32, 1.5));
}
END_TEST

START_TEST(fp32_holds_what_rounds_to_a_finite_float)
{
    double halfway = (double)FLT_MAX + ldexp(1, 103); /* to infinity, by ties-to-even */
    ck_assert(!datatype_holds(DATATYPE_FP32, halfway));
    ck_assert(isinf((float)halfway));
    ck_assert(datatype_holds(DATATYPE_FP32, nextafter(halfway, 0)));
    ck_assert(!isinf((float)nextafter(halfway, 0)));
}
END_TEST

/* Converts one element that ends at an unreadable page, which also misaligns it. */
static float convert(enum datatype datatype, const void *element)
{
    struct guarded copy = guarded_copy(element, datatype_bytes(datatype));
    float value = -77;
    ck_assert_uint_eq(datatype_to_f32(datatype, copy.text, 1, &value), 1);
    guarded_free(&copy);
    return value;
}

START_TEST(converts_integers)
{
    ck_assert(convert(DATATYPE_UINT8, &(uint8_t){200}) == 200);
    ck_assert(convert(DATATYPE_UINT16, &(uint16_t){60000}) == 60000);
    ck_assert(convert(DATATYPE_UINT32, &(uint32_t){4000000000u}) == 4e9f);
    ck_assert(convert(DATATYPE_UINT64, &(uint64_t){UINT64_MAX}) == 0x1p64f);
    ck_assert(convert(DATATYPE_INT8, &(int8_t){-128}) == -128);
    ck_assert(convert(DATATYPE_INT16, &(int16_t){-30000}) == -30000);
    ck_assert(convert(DATATYPE_INT32, &(int32_t){INT32_MIN}) == -0x1p31f);
    ck_assert(convert(DATATYPE_INT64, &(int64_t){INT64_MIN}) == -0x1p63f);
    /* 2^24 + 1 lies halfway: to even. */
    ck_assert(convert(DATATYPE_INT32, &(int32_t){16777217}) == 16777216);
    ck_assert(convert(DATATYPE_INT32, &(int32_t){16777219}) == 16777220);
}
END_TEST

START_TEST(converts_reals)
{
    ck_assert(convert(DATATYPE_FP32, &(float){-1.5f}) == -1.5f);
    ck_assert(convert(DATATYPE_FP64, &(double){0.1}) == 0.1f);
    ck_assert(convert(DATATYPE_FP64, &(double){1e-60}) == 0);
    ck_assert(convert(DATATYPE_BF16, &(uint16_t){0x3F80}) == 1);
    ck_assert(convert(DATATYPE_BF16, &(uint16_t){0xC0A0}) == -5);
    ck_assert(convert(DATATYPE_FP16, &(uint16_t){0x3C00}) == 1);
    ck_assert(convert(DATATYPE_FP16, &(uint16_t){0xC500}) == -5);
    ck_assert(convert(DATATYPE_FP16, &(uint16_t){0x7BFF}) == 65504);
    ck_assert(convert(DATATYPE_FP16, &(uint16_t){0x0001}) == 0x1p-24f);
    ck_assert(convert(DATATYPE_FP16, &(uint16_t){0x83FF}) == -1023 * 0x1p-24f);
    ck_assert(signbit(convert(DATATYPE_FP16, &(uint16_t){0x8000})));
}
END_TEST

/* Compares every FP16 number with the definition of the format. */
START_TEST(converts_every_half)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        int exponent = (int)(bits >> 10) & 31, fraction = (int)(bits & 1023);
        uint16_t half = (uint16_t)bits;
        float value;
        size_t finite = datatype_to_f32(DATATYPE_FP16, &half, 1, &value);
        ck_assert_uint_eq(finite, exponent != 31);
        if (exponent == 31)
            continue;
        double magnitude =
            exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        ck_assert(value == (float)(bits & 0x8000 ? -magnitude : magnitude));
    }
}
END_TEST

START_TEST(counts_the_finite_ones_in_front)
{
    float fp32[] = {1, 2, NAN, 4, INFINITY}, values[5];
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_FP32, fp32, 5, values), 2);
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_FP32, fp32, 2, values), 2);
    double fp64[] = {1, 1e39, 2};
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_FP64, fp64, 3, values), 1);
    fp64[0] = NAN;
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_FP64, fp64, 3, values), 0);
    uint16_t halves[] = {0x3C00, 0x7C00};
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_FP16, halves, 2, values), 1);
    uint16_t bfloats[] = {0x7FC0};
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_BF16, bfloats, 1, values), 0);
    ck_assert_uint_eq(datatype_to_f32(DATATYPE_BYTES, bfloats, 1, values), 0);
}
END_TEST

RUN_TESTS("proto/datatype", names_and_sizes, numeric_types, ranges_are_exact,
          integers_have_no_fraction, fp32_holds_what_rounds_to_a_finite_float, converts_integers,
          converts_reals, converts_every_half, counts_the_finite_ones_in_front)

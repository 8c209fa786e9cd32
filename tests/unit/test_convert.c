/* 16-bit floats and FP8 to f32: exact for every bit pattern, 16 bits at any alignment. */
#include "core/dense/convert.h"
#include "core/half.h"
#include "core/load/tensor.h"
#include "support.h"

static float f16(uint16_t bits)
{
    float value;
    convert_f16_to_f32(&bits, 1, &value);
    return value;
}

static float bf16(uint16_t bits)
{
    float value;
    convert_bf16_to_f32(&bits, 1, &value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

START_TEST(f16_of_known_numbers)
{
    ck_assert(f16(0x3c00) == 1.0f);
    ck_assert(f16(0xc000) == -2.0f);
    ck_assert(f16(0x3555) == 0.333251953125f);
    ck_assert(f16(0x7bff) == 65504.0f);
    ck_assert(f16(0x0400) == 6.103515625e-05f);        /* smallest normal, 2^-14 */
    ck_assert(f16(0x0001) == 5.9604644775390625e-08f); /* smallest subnormal, 2^-24 */
    ck_assert(f16(0x83ff) == -6.097555160522461e-05f); /* largest subnormal, negative */
}
END_TEST

START_TEST(f16_of_zero_infinity_and_nan)
{
    ck_assert_uint_eq(bits_of(f16(0x0000)), 0);
    ck_assert_uint_eq(bits_of(f16(0x8000)), 0x80000000u);
    ck_assert(f16(0x7c00) == INFINITY);
    ck_assert(f16(0xfc00) == -INFINITY);
    ck_assert(isnan(f16(0x7e00)));
    ck_assert(isnan(f16(0x7c01)));
    ck_assert(isnan(f16(0xffff)));
}
END_TEST

/* The definition of binary16, in double. */
static double f16_by_definition(uint16_t bits)
{
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const double magnitude =
        exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

START_TEST(f16_is_exact_for_every_finite_pattern)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        if ((bits >> 10 & 31) == 31)
            continue;
        if ((double)f16((uint16_t)bits) != f16_by_definition((uint16_t)bits))
            ck_abort_msg("0x%04x is %.9g", bits, (double)f16((uint16_t)bits));
    }
}
END_TEST

START_TEST(bf16_is_the_upper_half_of_a_float)
{
    ck_assert(bf16(0x3f80) == 1.0f);
    ck_assert(bf16(0xc049) == -3.140625f);
    ck_assert(bf16(0x7f80) == INFINITY);
    ck_assert(isnan(bf16(0x7fc0)));
    for (uint32_t bits = 0; bits < 0x10000; bits++)
        if (bits_of(bf16((uint16_t)bits)) != bits << 16)
            ck_abort_msg("0x%04x is %.9g", bits, (double)bf16((uint16_t)bits));
}
END_TEST

START_TEST(any_alignment_will_do)
{
    const uint16_t halves[3] = {0x3c00, 0x4000, 0x4200};
    char bytes[sizeof halves + 1];
    float values[3];
    memcpy(bytes + 1, halves, sizeof halves);
    convert_f16_to_f32(bytes + 1, 3, values);
    expect_close(values, FLOATS(1, 2, 3), 3);
    convert_bf16_to_f32(bytes + 1, 3, values);
    ck_assert_uint_eq(bits_of(values[2]), 0x42000000u);
}
END_TEST

/* The definition of E4M3. */
static float fp8_by_definition(unsigned bits)
{
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const float magnitude =
        exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
    return bits & 0x80 ? -magnitude : magnitude;
}

START_TEST(fp8_is_exact_for_every_finite_pattern)
{
    ck_assert(float_of_fp8(0x7E) == 448);
    for (unsigned bits = 0; bits < 256; bits++)
        if ((bits & 0x7F) != 0x7F)
            ck_assert_uint_eq(bits_of(float_of_fp8((uint8_t)bits)),
                              bits_of(fp8_by_definition(bits)));
}
END_TEST

/* Two rows of 40, each with two scales. */
START_TEST(fp8_has_its_group_s_scale)
{
    float scales[4] = {1, 0.5f, -3, 0x1p100f}, values[4];
    uint8_t bytes[80];
    memset(bytes, 0x38, sizeof bytes); /* 1 */
    struct tensor tensor = {.name = "w",
                            .shard = "file",
                            .dtype = DTYPE_F8_E4M3,
                            .rank = 2,
                            .dims = {2, 40},
                            .elements = 80,
                            .data = bytes,
                            .scales = scales};
    struct error err = ERROR_INIT;
    tensor_part_to_f32(&tensor, 30, 4, values);
    expect_close(values, FLOATS(1, 1, 0.5f, 0.5f), 4);
    tensor_part_to_f32(&tensor, 39, 2, values);
    expect_close(values, FLOATS(0.5f, -3), 2);
    ck_assert_int_eq(tensor_check_finite(&tensor, &err), 0);
    bytes[77] = 0xFF;
    ck_assert_int_ne(tensor_check_finite(&tensor, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "element 77 of 80 is NaN"));
    for (size_t i = 0; i < 3; i++) {
        err = (struct error)ERROR_INIT;
        scales[3] = FLOATS(0x1.1p100f, INFINITY, NAN)[i];
        ck_assert_int_ne(tensor_check_finite(&tensor, &err), 0);
        ck_assert_ptr_nonnull(strstr(err.text, "a block's scale is"));
    }
}
END_TEST

TEST_MAIN("convert", f16_of_known_numbers, f16_of_zero_infinity_and_nan,
          f16_is_exact_for_every_finite_pattern, bf16_is_the_upper_half_of_a_float,
          any_alignment_will_do, fp8_is_exact_for_every_finite_pattern, fp8_has_its_group_s_scale)

/* 16-bit floats to f32: exact for every bit pattern, at any alignment. */
#include "core/dense/convert.h"
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

TEST_MAIN("convert", f16_of_known_numbers, f16_of_zero_infinity_and_nan,
          f16_is_exact_for_every_finite_pattern, bf16_is_the_upper_half_of_a_float,
          any_alignment_will_do)

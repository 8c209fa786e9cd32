/* Functions that are no calls, beside those of the C library in double precision. */
#include "core/dense/math.h"
#include "support.h"

static void expect_near(float x, double value, double exact, double most)
{
    if (!(fabs(value - exact) <= most)) /* an assertion for each would take a minute */
        ck_abort_msg("of %g: %g, expected %g", (double)x, value, exact);
}

/* Relative to what is exact; of subnormal numbers two of their steps. */
static void expect_part(float x, double value, double exact)
{
    expect_near(x, value, exact, 3e-7 * fabs(exact) + 2.9e-45);
}

/* Every 997th float of both signs, among them the smallest and the largest. */
START_TEST(functions_without_calls_are_near_the_exact_ones)
{
    for (uint32_t bits = 0; bits <= 0x7F800000; bits += 997) {
        float x;
        memcpy(&x, &bits, sizeof x);
        for (int sign = 0; sign < 2; sign++, x = -x) {
            const double exact = (double)x;
            expect_near(x, (double)error_function(x), erf(exact), 1.2e-7);
            expect_near(x, (double)times_sigmoid(1, x), 1 / (1 + exp(-exact)), 1.2e-7);
            expect_part(x, (double)sigmoid(x), 1 / (1 + exp(-exact)));
            expect_part(x, (double)tanh_of(x), tanh(exact));
            expect_part(x, (double)softplus(x),
                        x > 0 ? exact + log1p(exp(-exact)) : log1p(exp(exact)));
            if (x <= 0)
                expect_part(x, (double)exp_less_one(x), expm1(exact));
        }
        if (x < 87)
            expect_near(x, (double)exp_below(-x) / exp(-(double)x), 1, 1.5e-7);
    }
    ck_assert(error_function(INFINITY) == 1 && error_function(-INFINITY) == -1);
    ck_assert(silu(INFINITY) == INFINITY && exp_below(-INFINITY) == 0);
    ck_assert(isnan(error_function(NAN)) && isnan(exp_below(NAN)) && isnan(silu(NAN)));
    ck_assert(isnan(gelu_erf(NAN)) && signbit(error_function(-0.0f)));
    ck_assert(tanh_of(INFINITY) == 1 && tanh_of(-INFINITY) == -1 && signbit(tanh_of(-0.0f)));
    ck_assert(exp_less_one(-INFINITY) == -1 && softplus(INFINITY) == INFINITY);
    ck_assert(softplus(-INFINITY) == 0 && sigmoid(INFINITY) == 1 && sigmoid(-INFINITY) == 0);
    ck_assert(isnan(tanh_of(NAN)) && isnan(exp_less_one(NAN)) && isnan(softplus(NAN)));
}
END_TEST

TEST_MAIN("math", functions_without_calls_are_near_the_exact_ones)

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
    if (value != (double)(float)exact) /* both may be infinite, where no difference is a number */
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

/* The last float whose exponential is one is 88.722832; -103.97208 and above give the smallest. */
START_TEST(exponentials_end_in_infinity_and_zero)
{
    ck_assert(exp_of(88.722832f) < INFINITY && exp_of(88.722839f) == INFINITY);
    ck_assert(exp_of(-103.97207f) == 1.4e-45f && exp_of(-103.97209f) == 0);
    ck_assert(exp_of(INFINITY) == INFINITY && exp_of(-INFINITY) == 0);
    ck_assert(exp_of(0) == 1 && exp_of(-0.0f) == 1 && isnan(exp_of(NAN)) && isnan(exp_of(-NAN)));
}
END_TEST

START_TEST(logarithms_of_what_has_none)
{
    ck_assert(log_of(0) == -INFINITY && log_of(-0.0f) == -INFINITY);
    ck_assert(log_of(INFINITY) == INFINITY && isnan(log_of(-INFINITY)));
    ck_assert(isnan(log_of(-1)) && isnan(log_of(-1e-45f)) && isnan(log_of(NAN)));
    ck_assert(log_of(1) == 0 && !signbit(log_of(1)));
}
END_TEST

/* Around 1 a logarithm is far smaller than what it is of: every float. */
START_TEST(logarithms_around_one)
{
    for (uint32_t bits = 0x3F7F8000; bits <= 0x3F808000; bits++) {
        float x;
        memcpy(&x, &bits, sizeof x);
        expect_part(x, (double)log_of(x), log((double)x));
    }
}
END_TEST

/* max_of(), sum_of() and softmaxes work in lanes: of every number of values, one of each in turn.
 */
START_TEST(softmax_of_every_width)
{
    enum { MOST = 131 };
    float x[MOST], p[MOST], y[MOST], entropy;
    for (size_t i = 0; i < MOST; i++)
        x[i] = (float)(i * 37 % 101) * 0.11f - 5;
    for (size_t count = 1; count <= MOST; count++) {
        double sum = 0, expected = 0, most = -INFINITY, plain = 0;
        for (size_t i = 0; i < count; i++) {
            sum += exp((double)x[i]);
            plain += (double)x[i];
            most = fmax(most, (double)x[i]);
        }
        ck_assert(max_of(x, count) == (float)most);
        ck_assert_double_eq_tol((double)sum_of(x, count), plain, 1e-4);
        softmax(x, count, p, &entropy);
        log_softmax(x, count, y);
        for (size_t i = 0; i < count; i++) {
            double exact = (double)x[i] - log(sum);
            expect_near(x[i], (double)y[i], exact, 2e-6);
            expect_near(x[i], (double)p[i], exp(exact), 1e-6 * exp(exact));
            expected -= exp(exact) * exact;
        }
        expect_near(0, (double)entropy, expected, 2e-6);
    }
}
END_TEST

TEST_MAIN("math", functions_without_calls_are_near_the_exact_ones,
          exponentials_end_in_infinity_and_zero, logarithms_of_what_has_none, logarithms_around_one,
          softmax_of_every_width)

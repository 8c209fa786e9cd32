/* Percentiles out of a histogram: each value to 1/128 of itself, the extremes exactly. */
#include "clients/c/moectl/latency.h"
#include "support.h"

static struct latency latency, other;

static void close_to(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) <= expected / 128, "%g, expected %g", value, expected);
}

START_TEST(percentiles_of_a_ramp)
{
    for (uint64_t i = 1; i <= 100000; i++)
        latency_add(&latency, i * 1000);
    static const double PARTS[] = {0.001, 0.1, 0.5, 0.9, 0.99, 0.999};
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        close_to(latency_percentile(&latency, PARTS[i]), PARTS[i] * 1e8);
    ck_assert(latency_percentile(&latency, 1) == 1e8);
    close_to(latency_mean(&latency), 50000500);
}
END_TEST

START_TEST(every_magnitude_has_a_bucket)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        memset(&latency, 0, sizeof latency);
        latency_add(&latency, 1);
        latency_add(&latency, (uint64_t)1 << bit);
        latency_add(&latency, UINT64_MAX);
        close_to(latency_percentile(&latency, 0.5), ldexp(1, (int)bit));
    }
}
END_TEST

START_TEST(few_values)
{
    ck_assert(latency_percentile(&latency, 0.5) == 0 && latency_mean(&latency) == 0);
    latency_add(&latency, 5000);
    ck_assert(latency_percentile(&latency, 0) == 5000 &&
              latency_percentile(&latency, 0.99) == 5000);
    latency_add(&latency, 7000);
    close_to(latency_percentile(&latency, 0.5), 5000);
    close_to(latency_percentile(&latency, 0.51), 7000);
}
END_TEST

START_TEST(merging_is_adding_all)
{
    for (uint64_t i = 0; i < 100; i++)
        latency_add(i % 2 ? &latency : &other, i * i);
    latency_merge(&latency, &other);
    memset(&other, 0, sizeof other);
    latency_merge(&latency, &other);
    ck_assert_uint_eq(latency.count, 100);
    ck_assert_uint_eq(latency.least, 0);
    ck_assert_uint_eq(latency.most, 99 * 99);
    close_to(latency_percentile(&latency, 0.5), 49 * 49);
}
END_TEST

TEST_MAIN("moectl latency", percentiles_of_a_ramp, every_magnitude_has_a_bucket, few_values,
          merging_is_adding_all)

/* Figures out of a page of Prometheus' text format. */
#include "clients/c/moectl/metrics.h"
#include "support.h"

static const char PAGE[] = "# TYPE moed_requests_total counter\n"
                           "moed_requests_total{model=\"a\",version=\"1\",code=\"200\"} 40\n"
                           "moed_requests_total{model=\"a\",version=\"2\",code=\"200\"} 2\n"
                           "moed_requests_total{model=\"a\",version=\"1\",code=\"503\"} 3\n"
                           "moed_requests_total{model=\"ab\",version=\"1\",code=\"200\"} 1000\n"
                           "moed_requests_total{submodel=\"a\",code=\"200\"} 1000\n"
                           "moed_queue_rows{model=\"a\",version=\"1\"} 7\n"
                           "moed_rows_total{model=\"a\",version=\"1\"} 8\n"
                           "moed_rows_total{model=\"a\",version=\"2\"} 5\n"
                           "moed_rows_total{model=\"ab\",version=\"1\"} 100\n"
                           "moed_request_seconds_bucket{model=\"a\",version=\"1\",le=\"0.1\"} 10\n"
                           "moed_request_seconds_bucket{model=\"a\",version=\"1\",le=\"0.2\"} 30\n"
                           "moed_request_seconds_bucket{model=\"a\",version=\"1\",le=\"+Inf\"} 40\n"
                           "moed_request_seconds_bucket{model=\"a\",version=\"2\",le=\"+Inf\"} 0\n"
                           "moed_request_seconds_sum{model=\"a\",version=\"1\"} 6\n"
                           "moed_connections 4\nbroken{\nmoed_queue_rows{model=\"a\n";

static void close_to(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) < 1e-12, "%g, expected %g", value, expected);
}

START_TEST(one_model_is_summed_over_versions)
{
    struct metrics metrics;
    metrics_read(&metrics, PAGE, "a");
    close_to(metrics.requests, 45);
    close_to(metrics.failed, 3);
    close_to(metrics.queue_rows, 7);
    close_to(metrics_rows(PAGE, "a"), 13);
    ck_assert_uint_eq(metrics.buckets, 3);
    close_to(metrics.below[2], 40);
}
END_TEST

START_TEST(what_is_not_there_is_not_a_number)
{
    struct metrics metrics;
    metrics_read(&metrics, PAGE, "b");
    ck_assert(isnan(metrics.requests) && isnan(metrics.queue_rows) && metrics.buckets == 0);
    ck_assert(isnan(metrics_percentile(&metrics, &metrics, 0.5)));
    close_to(metrics_rows(PAGE, "b"), 0);
}
END_TEST

START_TEST(percentiles_of_what_came_since)
{
    struct metrics before, now;
    metrics_read(&now, PAGE, "a");
    before = now;
    ck_assert(isnan(metrics_percentile(&now, &before, 0.5)));
    memset(before.below, 0, sizeof before.below);
    close_to(metrics_percentile(&now, &before, 0.25), 0.1);
    close_to(metrics_percentile(&now, &before, 0.5), 0.15);
    close_to(metrics_percentile(&now, &before, 0.99), 0.2); /* beyond the last bound */
}
END_TEST

TEST_MAIN("moectl metrics", one_model_is_summed_over_versions, what_is_not_there_is_not_a_number,
          percentiles_of_what_came_since)

/* prometheus: families, samples, escaping, cumulative histograms. */
#include <math.h>

#include "proto/prometheus.h"
#include "test_proto_support.h"

static void check_page(struct buffer *page, const char *expected)
{
    buffer_append(page, "", 1);
    ck_assert(!page->failed);
    ck_assert_str_eq(page->data, expected);
    buffer_close(page);
}

START_TEST(families_and_samples)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct prometheus_page page = {&body, false};
    prometheus_family(&page, "moed_rows_total", "counter", "Rows computed.");
    const struct prometheus_label labels[] = {{"model", "digits"}, {"version", "3"}};
    prometheus_sample(&page, "moed_rows_total", labels, 2, 123456789012.0);
    prometheus_sample(&page, "moed_rows_total", NULL, 0, 0.1);
    check_page(&body, "# HELP moed_rows_total Rows computed.\n"
                      "# TYPE moed_rows_total counter\n"
                      "moed_rows_total{model=\"digits\",version=\"3\"} 123456789012\n"
                      "moed_rows_total 0.1\n");
}
END_TEST

START_TEST(values_that_are_not_finite)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct prometheus_page page = {&body, false};
    prometheus_sample(&page, "x", NULL, 0, NAN);
    prometheus_sample(&page, "x", NULL, 0, INFINITY);
    prometheus_sample(&page, "x", NULL, 0, -INFINITY);
    check_page(&body, "x NaN\nx +Inf\nx -Inf\n");
}
END_TEST

/* A label cannot end its line, its quotes or the page's UTF-8. */
START_TEST(labels_are_escaped)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct prometheus_page page = {&body, false};
    prometheus_sample(&page, "x", &(struct prometheus_label){"model", "a\"b\\c\nd\xFF\xC3\xA9"}, 1,
                      1);
    check_page(&body, "x{model=\"a\\\"b\\\\c\\nd\xEF\xBF\xBD\xC3\xA9\"} 1\n");
}
END_TEST

START_TEST(histograms_are_cumulative)
{
    static const double bounds[] = {0.001, 0.5, 1};
    struct histogram histogram;
    histogram_init(&histogram, bounds, 3);
    histogram_observe(&histogram, 0.001); /* upper bounds are inclusive */
    histogram_observe(&histogram, 0.25);
    histogram_observe(&histogram, 0.25);
    histogram_observe(&histogram, 7);
    ck_assert_uint_eq(histogram.counts[0], 1);
    ck_assert_uint_eq(histogram.counts[1], 2);
    ck_assert_uint_eq(histogram.counts[2], 0);
    ck_assert_uint_eq(histogram.counts[3], 1);
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct prometheus_page page = {&body, false};
    prometheus_histogram(&page, "t", &(struct prometheus_label){"model", "m"}, 1, &histogram);
    prometheus_histogram(&page, "u", NULL, 0, &histogram);
    check_page(&body, "t_bucket{model=\"m\",le=\"0.001\"} 1\n"
                      "t_bucket{model=\"m\",le=\"0.5\"} 3\n"
                      "t_bucket{model=\"m\",le=\"1\"} 3\n"
                      "t_bucket{model=\"m\",le=\"+Inf\"} 4\n"
                      "t_sum{model=\"m\"} 7.501\n"
                      "t_count{model=\"m\"} 4\n"
                      "u_bucket{le=\"0.001\"} 1\n"
                      "u_bucket{le=\"0.5\"} 3\n"
                      "u_bucket{le=\"1\"} 3\n"
                      "u_bucket{le=\"+Inf\"} 4\n"
                      "u_sum 7.501\n"
                      "u_count 4\n");
    histogram_close(&histogram);
}
END_TEST

START_TEST(empty_histograms_have_all_buckets)
{
    static const double bounds[] = {1};
    struct histogram histogram;
    histogram_init(&histogram, bounds, 1);
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct prometheus_page page = {&body, false};
    prometheus_histogram(&page, "t", NULL, 0, &histogram);
    check_page(&body, "t_bucket{le=\"1\"} 0\nt_bucket{le=\"+Inf\"} 0\nt_sum 0\nt_count 0\n");
    histogram_close(&histogram);
}
END_TEST

START_TEST(openmetrics)
{
    static const double bounds[] = {5e-05, 1, 1024};
    struct histogram histogram;
    histogram_init(&histogram, bounds, 3);
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct prometheus_page page = {&body, true};
    prometheus_family(&page, "moed_rows_total", "counter", "Rows.");
    prometheus_sample(&page, "moed_rows_total", NULL, 0, 3);
    prometheus_family(&page, "t", "histogram", "Times.");
    prometheus_histogram(&page, "t", NULL, 0, &histogram);
    prometheus_end(&page);
    check_page(&body, "# HELP moed_rows Rows.\n# TYPE moed_rows counter\nmoed_rows_total 3\n"
                      "# HELP t Times.\n# TYPE t histogram\n"
                      "t_bucket{le=\"5e-05\"} 0\nt_bucket{le=\"1.0\"} 0\n"
                      "t_bucket{le=\"1024.0\"} 0\nt_bucket{le=\"+Inf\"} 0\nt_sum 0\nt_count 0\n"
                      "# EOF\n");
    histogram_close(&histogram);
}
END_TEST

START_TEST(the_client_chooses_the_format)
{
    ck_assert(!prometheus_wants_openmetrics(NULL));
    ck_assert(!prometheus_wants_openmetrics("text/plain, */*"));
    ck_assert(prometheus_wants_openmetrics(
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"));
    ck_assert_str_eq(prometheus_content_type(false), "text/plain; version=0.0.4; charset=utf-8");
    ck_assert_str_eq(prometheus_content_type(true),
                     "application/openmetrics-text; version=1.0.0; charset=utf-8");
}
END_TEST

RUN_TESTS("proto/prometheus", openmetrics, the_client_chooses_the_format, families_and_samples,
          values_that_are_not_finite, labels_are_escaped, histograms_are_cumulative,
          empty_histograms_have_all_buckets)

/* The text format of Prometheus 0.0.4 and OpenMetrics 1.0, written one family at a time. They
 * differ in the family names of counters, in how a bucket's bound is written, and in the last line.
 */
#ifndef PROTO_PROMETHEUS_H
#define PROTO_PROMETHEUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

struct prometheus_label {
    const char *name;  /* a literal of ours */
    const char *value; /* escaped on writing */
};

enum { PROMETHEUS_MAX_LABELS = 6 };

/* A histogram's state: counts per bucket (not cumulative), the last for +Inf. */
struct histogram {
    const double *bounds; /* [bound_count] ascending upper bounds, borrowed */
    size_t bound_count;
    uint64_t *counts; /* [bound_count + 1], owned */
    double sum;
};

void histogram_init(struct histogram *histogram, const double *bounds, size_t bound_count);
void histogram_close(struct histogram *histogram);
void histogram_observe(struct histogram *histogram, double value);
/* total += histogram; both have the same bounds. */
void histogram_add(struct histogram *total, const struct histogram *histogram);

struct prometheus_page {
    struct buffer *body;
    bool openmetrics;
};

/* "# HELP" and "# TYPE" lines; call once per family, before its samples. `name` is that of its
 * samples (or of a histogram, without a suffix), `type` "counter", "gauge", "histogram", or, in
 * OpenMetrics, "unknown": a counter whose name without _total is another family's. */
void prometheus_family(struct prometheus_page *page, const char *name, const char *type,
                       const char *help);

void prometheus_sample(struct prometheus_page *page, const char *name,
                       const struct prometheus_label *labels, size_t label_count, double value);

/* name_bucket{...,le="..."}, name_sum, name_count. */
void prometheus_histogram(struct prometheus_page *page, const char *name,
                          const struct prometheus_label *labels, size_t label_count,
                          const struct histogram *histogram);

/* After the last family. */
void prometheus_end(struct prometheus_page *page);

/* Whether a client with this Accept header (NULL: none) is to get OpenMetrics, and the content type
 * of the one or the other. */
bool prometheus_wants_openmetrics(const char *accept);
const char *prometheus_content_type(bool openmetrics);

#endif

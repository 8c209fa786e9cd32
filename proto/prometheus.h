/* Prometheus text format 0.0.4, written one family at a time. */
#ifndef PROTO_PROMETHEUS_H
#define PROTO_PROMETHEUS_H

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
/* total += histogram; both of the same bounds. */
void histogram_add(struct histogram *total, const struct histogram *histogram);

/* "# HELP" and "# TYPE" lines; call once per family, before its samples. */
void prometheus_family(struct buffer *page, const char *name, const char *type, const char *help);

void prometheus_sample(struct buffer *page, const char *name, const struct prometheus_label *labels,
                       size_t label_count, double value);

/* name_bucket{...,le="..."}, name_sum, name_count. */
void prometheus_histogram(struct buffer *page, const char *name,
                          const struct prometheus_label *labels, size_t label_count,
                          const struct histogram *histogram);

#endif

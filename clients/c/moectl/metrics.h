/* A few figures of one model out of /metrics. */
#ifndef MOECTL_METRICS_H
#define MOECTL_METRICS_H

#include <stddef.h>

enum { METRICS_MOST_BUCKETS = 64 };

/* Sums over the model's versions since the server's start; NAN: not on the page. */
struct metrics {
    double requests, failed; /* of all statuses; of those that are not 200 */
    double queue_rows;       /* now */
    /* Of moed_request_seconds: requests up to each bound, in seconds. */
    double bounds[METRICS_MOST_BUCKETS], below[METRICS_MOST_BUCKETS];
    size_t buckets;
};

/* `text` is a page in Prometheus' text format. */
void metrics_read(struct metrics *metrics, const char *text, const char *model);

/* Rows of the model that were computed; 0: none, or not on the page. */
double metrics_rows(const char *text, const char *model);

/* Seconds that `part` of the requests between two pages took at most, to the buckets' resolution
 * (linear within one, as Prometheus has it); NAN when there were none. */
double metrics_percentile(const struct metrics *now, const struct metrics *before, double part);

#endif

/* GET /metrics: everything counted, in Prometheus's text format or OpenMetrics.
 * proto/METRICS.md describes every family. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdbool.h>

#include "proto/buffer.h"

struct api;

/* Of the models that are served. Any loop's thread. */
void metrics_page(const struct api *api, bool openmetrics, struct buffer *body);

#endif

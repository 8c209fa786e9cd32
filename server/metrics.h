/* GET /metrics: everything counted, in Prometheus's text format. README.md lists the names. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "proto/buffer.h"

struct api;

/* Appends the page about the models that the loop of `api` serves. That loop's thread only. */
void metrics_page(const struct api *api, struct buffer *page);

#endif

/* GET /metrics: everything counted, in Prometheus's text format. README.md lists the names. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "proto/buffer.h"

struct server;

void metrics_page(const struct server *server, struct buffer *page);

#endif

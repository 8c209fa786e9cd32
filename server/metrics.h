/* GET /metrics: everything counted, in Prometheus's text format. README.md lists the names. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include "proto/buffer.h"

struct catalog;
struct server;

/* Of the models of `catalog`. Any loop's thread. */
void metrics_page(const struct server *server, const struct catalog *catalog, struct buffer *page);

#endif

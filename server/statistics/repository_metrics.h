/* The state of models for Prometheus. */
#ifndef SERVER_REPOSITORY_METRICS_H
#define SERVER_REPOSITORY_METRICS_H

#include "proto/prometheus.h"
#include "server/models/catalog.h"

void repository_metrics(const struct catalog *catalog, struct prometheus_page *page);

#endif

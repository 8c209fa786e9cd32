/* What each loop counts that belongs to no model. A loop writes only its own; any thread may add up
 * all of them. */
#ifndef SERVER_TOTALS_H
#define SERVER_TOTALS_H

#include "server/statistics/stats.h"

struct grpc;
struct http;

struct loop_totals {
    const struct http *http, *admin;      /* count their connections; borrowed from the loop */
    const struct grpc *grpc;              /* the same; NULL: none, like `admin` */
    uv_mutex_t mutex;                     /* guards the next */
    struct request_counts other_requests; /* those that reached no model */
};

struct totals {
    size_t loops;
    struct loop_totals loop[];
};

struct totals *totals_new(size_t loops);
void totals_free(struct totals *totals);

/* Open connections of all loops, each of which must listen. */
unsigned totals_connections(const struct totals *totals);

/* Adds those of all loops to `sum`, which the caller closes. */
void totals_other_requests(struct totals *totals, struct request_counts *sum);

#endif

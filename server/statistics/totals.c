/* One shard per loop, so that loops do not wait for each other. */
#include "server/statistics/totals.h"

#include <stdlib.h>

#include "core/memory.h"
#include "server/grpc/grpc.h"
#include "server/http/http.h"

struct totals *totals_new(size_t loops)
{
    struct totals *totals = xcalloc(1, sizeof *totals + loops * sizeof *totals->loop);
    totals->loops = loops;
    for (size_t i = 0; i < loops; i++)
        if (uv_mutex_init(&totals->loop[i].mutex) != 0)
            out_of_memory();
    return totals;
}

void totals_free(struct totals *totals)
{
    for (size_t i = 0; totals && i < totals->loops; i++) {
        request_counts_close(&totals->loop[i].other_requests);
        uv_mutex_destroy(&totals->loop[i].mutex);
    }
    free(totals);
}

unsigned totals_connections(const struct totals *totals)
{
    unsigned count = 0;
    for (size_t i = 0; i < totals->loops; i++) {
        count += http_connections(totals->loop[i].http);
        if (totals->loop[i].admin)
            count += http_connections(totals->loop[i].admin);
        if (totals->loop[i].grpc)
            count += grpc_connections(totals->loop[i].grpc);
    }
    return count;
}

void totals_other_requests(struct totals *totals, struct request_counts *sum)
{
    for (size_t i = 0; i < totals->loops; i++) {
        struct loop_totals *loop = &totals->loop[i];
        uv_mutex_lock(&loop->mutex);
        request_counts_merge(sum, &loop->other_requests);
        uv_mutex_unlock(&loop->mutex);
    }
}

/* What the loops count, added up; apart from what starts and stops them. */
#include "server/server.h"

unsigned server_connections(const struct server *server)
{
    unsigned count = 0;
    for (size_t i = 0; i < server->count; i++)
        count += http_connections(server->loops[i].http);
    return count;
}

void server_other_requests(const struct server *server, struct request_counts *total)
{
    for (size_t i = 0; i < server->count; i++) {
        struct loop *loop = &server->loops[i];
        uv_mutex_lock(&loop->mutex);
        request_counts_merge(total, &loop->other_requests);
        uv_mutex_unlock(&loop->mutex);
    }
}

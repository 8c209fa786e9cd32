/* Adding up the loops' counters; see census.h. */
#include "server/census.h"

#include <stdlib.h>

static void add_up(const struct process *process, size_t index, struct stats *total)
{
    stats_init(total, process->servers[0].registry.items[index]->info);
    for (size_t i = 0; i < process->count; i++)
        stats_add(total, &process->servers[i].registry.items[index]->stats);
}

void census_of_model(const struct server *server, const struct served *served, struct stats *total)
{
    add_up(server->process, registry_index(&server->registry, served), total);
}

static void add_other_requests(struct census *census, struct server *server)
{
    uv_mutex_lock(&server->mutex);
    request_counts_merge(&census->other_requests, &server->other_requests);
    uv_mutex_unlock(&server->mutex);
}

void census_take(struct census *census, const struct server *server)
{
    const struct process *process = server->process;
    *census = (struct census){.server = server, .count = server->registry.count};
    census->entries = xcalloc(census->count, sizeof *census->entries);
    for (size_t i = 0; i < census->count; i++) {
        census->entries[i].served = server->registry.items[i];
        add_up(process, i, &census->entries[i].stats);
    }
    for (size_t loop = 0; loop < process->count; loop++) {
        const struct server *one = &process->servers[loop];
        add_other_requests(census, &process->servers[loop]);
        census->connections += http_connections(one->http);
        for (size_t i = 0; i < census->count; i++)
            census->entries[i].queue_rows += one->registry.items[i]->queue.rows;
    }
}

void census_close(struct census *census)
{
    for (size_t i = 0; i < census->count; i++)
        stats_close(&census->entries[i].stats);
    free(census->entries);
    request_counts_close(&census->other_requests);
}

/* What all loops of the process have counted together. The only place where one loop's thread looks
 * at another's: through mutexes and atomics, see stats.h, queue.h and http.h. */
#ifndef SERVER_CENSUS_H
#define SERVER_CENSUS_H

#include "server/server.h"

/* Taken once for a page of metrics, so that its families agree. */
struct census {
    const struct server *server;
    size_t count; /* of models; in the registry's order */
    struct entry {
        const struct served *served;
        struct stats stats;
        size_t queue_rows;
    } * entries;
    struct request_counts other_requests; /* those that reached no model */
    unsigned connections;
};

void census_take(struct census *census, const struct server *server);
void census_close(struct census *census);

/* Of one model only; stats_close() it. */
void census_of_model(const struct server *server, const struct served *served, struct stats *total);

#endif

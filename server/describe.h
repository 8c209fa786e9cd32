/* The read-only endpoints: health, metadata, lists, routing statistics, metrics. Each answers at
 * once. */
#ifndef SERVER_DESCRIBE_H
#define SERVER_DESCRIBE_H

#include "server/routes.h"
#include "server/served.h"

/* The model a path names, noted on the exchange for log and metrics; NULL with a 404. */
struct served *describe_find(const struct server *server, struct exchange *exchange,
                             const struct route_params *params, struct error *err);

#define DESCRIBE(name)                                                                             \
    void describe_##name(struct server *server, struct exchange *exchange,                         \
                         const struct route_params *params)

DESCRIBE(server);
DESCRIBE(live);
DESCRIBE(alive);
DESCRIBE(ready);
DESCRIBE(model);
DESCRIBE(model_ready);
DESCRIBE(config);
DESCRIBE(routing);
DESCRIBE(list);
DESCRIBE(v1_model);
DESCRIBE(metrics);

#endif

/* What the handlers of the API see of the server, and their type. */
#ifndef SERVER_API_H
#define SERVER_API_H

#include <stdatomic.h>

#include "server/access/access.h"
#include "server/compute/lanes.h"
#include "server/http/http.h"
#include "server/models/changes.h"
#include "server/options/options.h"
#include "server/routes/generation.h"
#include "server/routes/predict.h"
#include "server/statistics/totals.h"
#include "server/trace.h"

struct api {
    const struct options *options;
    struct access *access;     /* who may ask for what */
    const struct lanes *lanes; /* of this loop, with the catalog it serves */
    struct predict *predict;
    struct generations *generations;
    const atomic_bool *stopping; /* a signal has asked for a stop: no longer ready */
    struct totals *totals;       /* of all loops */
    struct changes *changes;     /* of the repository, that clients wait for */
    struct live *live;           /* event streams of this loop */
    struct state *state;         /* where statistics are kept */
    struct trace *trace;
};

/* What a request's path names. */
struct target {
    const char *name;                /* of the model; "" where the route has none */
    struct model *model;             /* NULL unless the route needs one, or it is not served now */
    const char *version;             /* as the path has it; NULL: none, so `model` is the newest */
    const struct protocol *protocol; /* NULL unless the route is a protocol's */
};

/* Answers the exchange, now or later. */
typedef void api_handler(const struct api *api, struct exchange *exchange,
                         const struct target *target);

#endif

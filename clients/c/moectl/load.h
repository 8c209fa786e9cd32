/* Load on a server: threads with a connection each, that send prepared requests as a plan says. */
#ifndef MOECTL_LOAD_H
#define MOECTL_LOAD_H

#include "clients/c/moectl/latency.h"
#include "clients/c/moectl/settings.h"

struct load_plan {
    const struct moed_client_call *calls; /* sent in turn */
    size_t call_count;
    size_t connections;
    double rate; /* requests per second, sent on time whatever the answers do; 0: each connection
                  * sends when it has its answer */
    double duration;   /* seconds; 0: no end */
    uint64_t requests; /* 0: no end */
};

enum { LOAD_MOST_ERRORS = 8 };

struct load_error {
    int status; /* of HTTP; 0: no answer */
    uint64_t count;
    char text[MOED_CLIENT_ERROR_BYTES]; /* of the first one */
};

struct load_result {
    struct latency latency; /* from when a request was due to its answer; of answers */
    struct latency service; /* from when it was sent */
    struct load_error errors[LOAD_MOST_ERRORS];
    size_t error_kinds;
    uint64_t failed;
    double seconds; /* from the first request to the last answer */
    bool interrupted;
};

/* Runs the plan to its end, or until SIGINT or SIGTERM, after which what is on its way is awaited.
 * Every connection is opened by a request that is not counted. The caller frees the result. */
MUST_CHECK struct load_result *load_run(const struct settings *settings,
                                        const struct load_plan *plan,
                                        struct moed_client_error *err);

#endif

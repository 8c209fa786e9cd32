/* Load on a server: threads with a connection each, that send prepared requests as a plan says. */
#ifndef MOECTL_LOAD_H
#define MOECTL_LOAD_H

#include "clients/c/moectl/latency.h"
#include "clients/c/moectl/settings.h"

struct load_result;

struct load_turn {
    uint64_t number; /* of the request, from 0 */
    uint64_t due;    /* nanoseconds of load_now() */
};

/* The number of the requests that open connections; nothing of them is added to a result. */
static const uint64_t LOAD_OPENING = UINT64_MAX;

/* Sends the request of a turn and awaits its answer. Adds to `result`, which is NULL of one that
 * opens a connection, what there is beside latencies. Called by all threads at once. */
typedef int load_send(const void *work, struct moed_client *client, const struct load_turn *turn,
                      struct load_result *result, struct moed_client_error *err);

struct load_plan {
    load_send *send;
    const void *work;
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
    struct latency first;   /* of a language model: from when it was due to its first token */
    struct latency between; /* and from one to the next */
    uint64_t prompt_tokens, cached_tokens, answer_tokens;
    struct load_error errors[LOAD_MOST_ERRORS];
    size_t error_kinds;
    uint64_t failed;
    double seconds; /* from the first request to the last answer */
    bool interrupted;
};

/* Nanoseconds of the monotonic clock. */
uint64_t load_now(void);

/* Runs the plan to its end, or until SIGINT or SIGTERM, after which what is on its way is awaited.
 * Every connection is opened by a request that is not counted. The caller frees the result. */
MUST_CHECK struct load_result *load_run(const struct settings *settings,
                                        const struct load_plan *plan,
                                        struct moed_client_error *err);

#endif

/* serving.json: how one model is served, where that differs from the server's options. Strict: what
 * is not known is refused.
 *
 *   {"version_policy": "all" | {"latest": 2} | {"specific": [1, 3]},
 *    "default_version": 3, "labels": {"stable": 1, "canary": 3}, "warm_up_rows": 16,
 *    "limits": {"max_batch_rows": 32, "max_queue_delay_us": 500, "max_queue_rows": 1024,
 *               "max_request_rows": 256, "queue_timeout_ms": 2000}}
 */
#ifndef PROTO_SERVING_H
#define PROTO_SERVING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* A file is at most this long. */
enum { SERVING_MAX_BYTES = 64 << 10 };

/* Of a limit: the server's option counts. */
#define SERVING_UNSET UINT64_MAX

static inline uint64_t serving_limit(uint64_t limit, uint64_t option)
{
    return limit == SERVING_UNSET ? option : limit;
}

struct serving_limits {
    uint64_t max_batch_rows, max_queue_delay_us, max_queue_rows, max_request_rows, queue_timeout_ms;
};

struct serving_label {
    char *label;
    uint64_t version;
};

struct serving {
    uint64_t latest;    /* serve the highest so many versions; 0: all, or the specific ones */
    uint64_t *specific; /* [specific_count] serve these; NULL: all, or the latest */
    size_t specific_count;
    uint64_t default_version; /* for requests that name none; 0: the highest */
    uint64_t warm_up_rows;    /* computed before a model is ready; at least 1 */
    struct serving_limits limits;
    struct serving_label *labels;
    size_t label_count;
};

/* Everything as the server's options say. */
void serving_init(struct serving *serving);

/* Reads a file's text into an initialized `serving`. On error it is as it was. */
MUST_CHECK int serving_parse(struct serving *serving, const char *text, size_t length,
                             struct error *err);
void serving_close(struct serving *serving);

#endif

/* Slots are counted by an atomic number; the loops are known so that one of them can take the
 * longest idle connection of all. */
#include "server/http_limits.h"

#include <stdlib.h>

#include "server/http_internal.h"

struct http_limits {
    unsigned max_connections;
    atomic_uint connections; /* that have a slot */
    size_t max_body_bytes;
    atomic_size_t body_bytes; /* that connections and handlers hold */
    uv_mutex_t mutex;         /* guards the next; taken before any loop's idle_mutex */
    TAILQ_HEAD(, http) loops;
};

struct http_limits *http_limits_new(unsigned max_connections, size_t max_body_bytes,
                                    struct error *err)
{
    struct http_limits *limits = xcalloc(1, sizeof *limits);
    int status = uv_mutex_init(&limits->mutex);
    if (status != 0) {
        error_set(err, ERROR_INTERNAL, "cannot make a mutex: %s", uv_strerror(status));
        free(limits);
        return NULL;
    }
    limits->max_connections = max_connections;
    limits->max_body_bytes = max_body_bytes;
    TAILQ_INIT(&limits->loops);
    return limits;
}

void http_limits_free(struct http_limits *limits)
{
    if (!limits)
        return;
    uv_mutex_destroy(&limits->mutex);
    free(limits);
}

void http_limits_join(struct http_limits *limits, struct http *http)
{
    uv_mutex_lock(&limits->mutex);
    TAILQ_INSERT_TAIL(&limits->loops, http, link);
    uv_mutex_unlock(&limits->mutex);
}

void http_limits_leave(struct http_limits *limits, struct http *http)
{
    uv_mutex_lock(&limits->mutex);
    TAILQ_REMOVE(&limits->loops, http, link);
    uv_mutex_unlock(&limits->mutex);
}

bool http_limits_take_slot(struct http_limits *limits)
{
    unsigned taken = atomic_load(&limits->connections);
    while (taken < limits->max_connections)
        if (atomic_compare_exchange_weak(&limits->connections, &taken, taken + 1))
            return true;
    return false;
}

void http_limits_return_slot(struct http_limits *limits)
{
    atomic_fetch_sub(&limits->connections, 1);
}

bool http_limits_close_idle(struct http_limits *limits)
{
    struct http *http, *longest = NULL;
    uint64_t now = uv_hrtime() / 1000000, since = UINT64_MAX;
    uv_mutex_lock(&limits->mutex);
    TAILQ_FOREACH(http, &limits->loops, link)
    {
        uint64_t idle_since = connections_idle_since(http, now);
        if (idle_since < since) {
            since = idle_since;
            longest = http;
        }
    }
    bool closed = longest && connections_close_idle(longest, now);
    uv_mutex_unlock(&limits->mutex);
    return closed;
}

static int bodies_too_large(const struct http_limits *limits, struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE,
                     "the requests being received and served take all of the %zu bytes there are "
                     "for bodies; come back later",
                     limits->max_body_bytes);
}

int http_limits_take_body(struct http_limits *limits, size_t bytes, struct error *err)
{
    size_t others = atomic_fetch_add(&limits->body_bytes, bytes);
    if (others <= limits->max_body_bytes && bytes <= limits->max_body_bytes - others)
        return 0;
    atomic_fetch_sub(&limits->body_bytes, bytes);
    return bodies_too_large(limits, err);
}

void http_limits_return_body(struct http_limits *limits, size_t bytes)
{
    atomic_fetch_sub(&limits->body_bytes, bytes);
}

int http_limits_check_body(struct http_limits *limits, uint64_t bytes, struct error *err)
{
    size_t others = atomic_load(&limits->body_bytes);
    if (others <= limits->max_body_bytes && bytes <= limits->max_body_bytes - others)
        return 0;
    return bodies_too_large(limits, err);
}

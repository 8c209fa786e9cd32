/* Slots and bytes are atomic counters, addresses are in a small hash table. The loops are known, so
 * that the connection that gives way is the longest idle one of all. */
#include "server/http/http_limits.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "core/hash.h"
#include "core/memory.h"

/* A client address that has connections. */
struct address_count {
    uint8_t address[16]; /* the network of an IPv6 address; IPv4 mapped into one */
    unsigned connections;
    TAILQ_ENTRY(address_count) link;
};

enum { ADDRESS_LISTS = 256 };

struct http_limits {
    unsigned max_connections, max_connections_per_ip;
    atomic_uint connections; /* with a slot */
    size_t max_body_bytes;
    atomic_size_t body_bytes;   /* that connections and handlers hold */
    atomic_size_t answer_bytes; /* that wait for their clients */
    uv_mutex_t mutex;           /* guards the next; taken before any loop's idle_mutex */
    TAILQ_HEAD(, http_idle) loops;
    TAILQ_HEAD(address_list, address_count) addresses[ADDRESS_LISTS];
};

struct http_limits *http_limits_new(unsigned max_connections, unsigned max_connections_per_ip,
                                    size_t max_body_bytes, struct error *err)
{
    struct http_limits *limits = xcalloc(1, sizeof *limits);
    int status = uv_mutex_init(&limits->mutex);
    if (status != 0) {
        error_set(err, ERROR_INTERNAL, "cannot make a mutex: %s", uv_strerror(status));
        free(limits);
        return NULL;
    }
    limits->max_connections = max_connections;
    limits->max_connections_per_ip = max_connections_per_ip;
    limits->max_body_bytes = max_body_bytes;
    TAILQ_INIT(&limits->loops);
    for (size_t i = 0; i < ADDRESS_LISTS; i++)
        TAILQ_INIT(&limits->addresses[i]);
    return limits;
}

void http_limits_free(struct http_limits *limits)
{
    if (!limits)
        return;
    uv_mutex_destroy(&limits->mutex);
    free(limits);
}

void http_limits_join(struct http_limits *limits, struct http_idle *idle)
{
    uv_mutex_lock(&limits->mutex);
    TAILQ_INSERT_TAIL(&limits->loops, idle, link);
    uv_mutex_unlock(&limits->mutex);
}

void http_limits_leave(struct http_limits *limits, struct http_idle *idle)
{
    uv_mutex_lock(&limits->mutex);
    TAILQ_REMOVE(&limits->loops, idle, link);
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
    struct http_idle *idle, *longest = NULL;
    uint64_t now = uv_hrtime() / 1000000, since = UINT64_MAX;
    uv_mutex_lock(&limits->mutex);
    TAILQ_FOREACH(idle, &limits->loops, link)
    {
        uint64_t idle_since = idle->since(idle, now);
        if (idle_since < since) {
            since = idle_since;
            longest = idle;
        }
    }
    bool closed = longest && longest->close(longest, now);
    uv_mutex_unlock(&limits->mutex);
    return closed;
}

bool http_limits_take_or_free_slot(struct http_limits *limits)
{
    return http_limits_take_slot(limits) ||
           (http_limits_close_idle(limits) && http_limits_take_slot(limits));
}

/* ---- addresses ---- */

/* Of IPv6 a client has a network of 64 bits, and any address in it. */
static void read_address(const struct sockaddr *from, uint8_t address[static 16])
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    if (from->sa_family == AF_INET6) {
        memcpy(address, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
        if (memcmp(address, mapped, sizeof mapped) != 0)
            memset(address + 8, 0, 8);
        return;
    }
    memcpy(address, mapped, sizeof mapped);
    memcpy(address + sizeof mapped, &((const struct sockaddr_in *)from)->sin_addr, 4);
}

/* Who connects by a Unix socket has no address. */
static bool is_counted(const struct http_limits *limits, const struct sockaddr *from)
{
    return limits->max_connections_per_ip > 0 && from->sa_family != AF_UNIX;
}

static struct address_list *list_of(struct http_limits *limits, const uint8_t address[static 16])
{
    return &limits->addresses[hash_key(address, 16) % ADDRESS_LISTS];
}

static struct address_count *find_address(struct address_list *list,
                                          const uint8_t address[static 16])
{
    struct address_count *count;
    TAILQ_FOREACH(count, list, link)
    if (memcmp(count->address, address, 16) == 0)
        break;
    return count;
}

bool http_limits_admit(struct http_limits *limits, const struct sockaddr *from)
{
    uint8_t address[16];
    if (!is_counted(limits, from))
        return true;
    read_address(from, address);
    uv_mutex_lock(&limits->mutex);
    struct address_count *count = find_address(list_of(limits, address), address);
    bool admitted = !count || count->connections < limits->max_connections_per_ip;
    uv_mutex_unlock(&limits->mutex);
    return admitted;
}

bool http_limits_take_address(struct http_limits *limits, const struct sockaddr *from)
{
    uint8_t address[16];
    if (!is_counted(limits, from))
        return true;
    read_address(from, address);
    uv_mutex_lock(&limits->mutex);
    struct address_list *list = list_of(limits, address);
    struct address_count *count = find_address(list, address);
    if (!count) {
        count = xcalloc(1, sizeof *count);
        memcpy(count->address, address, sizeof address);
        TAILQ_INSERT_HEAD(list, count, link);
    }
    bool taken = count->connections < limits->max_connections_per_ip;
    count->connections += taken;
    uv_mutex_unlock(&limits->mutex);
    return taken;
}

void http_limits_return_address(struct http_limits *limits, const struct sockaddr *from)
{
    uint8_t address[16];
    if (!is_counted(limits, from))
        return;
    read_address(from, address);
    uv_mutex_lock(&limits->mutex);
    struct address_list *list = list_of(limits, address);
    struct address_count *count = find_address(list, address);
    if (count && --count->connections == 0) {
        TAILQ_REMOVE(list, count, link);
        free(count);
    }
    uv_mutex_unlock(&limits->mutex);
}

/* ---- bodies ---- */

static int bodies_too_large(const struct http_limits *limits, struct error *err)
{
    return error_set(err, ERROR_UNAVAILABLE,
                     "the bodies of the requests being received and served take all of the %zu "
                     "bytes allowed for them; come back later",
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

/* ---- answers ---- */

int http_limits_check_answer(struct http_limits *limits, size_t bytes, struct error *err)
{
    size_t others = atomic_load(&limits->answer_bytes);
    if (bytes <= HTTP_SMALL_ANSWER_BYTES || others == 0 ||
        (others <= limits->max_body_bytes && bytes <= limits->max_body_bytes - others))
        return 0;
    return error_set(err, ERROR_UNAVAILABLE,
                     "the answers that clients have not taken take all of the %zu bytes allowed "
                     "for them; come back later",
                     limits->max_body_bytes);
}

size_t http_limits_take_answer(struct http_limits *limits, size_t bytes)
{
    size_t taken = bytes > HTTP_SMALL_ANSWER_BYTES ? bytes : 0;
    atomic_fetch_add(&limits->answer_bytes, taken);
    return taken;
}

void http_limits_return_answer(struct http_limits *limits, size_t taken)
{
    atomic_fetch_sub(&limits->answer_bytes, taken);
}

uint64_t http_limits_patience_ms(struct http_limits *limits, size_t taken, uint64_t idle_ms)
{
    bool many = atomic_load(&limits->answer_bytes) > limits->max_body_bytes / 2;
    return many && taken > 0 && HTTP_STUCK_READER_MS < idle_ms ? HTTP_STUCK_READER_MS : idle_ms;
}

/* A bucket is one number, the time at which it will be full (GCRA): taking moves it on by an
 * interval, and it may be at most `burst` intervals ahead. */
#include "server/access/rate.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"

/* The most clients that are known at a time, and how many share a place. */
enum { PLACES = 512, CLIENTS_OF_A_PLACE = 8 };

struct rate_client {
    uint8_t address[16]; /* of IPv6; IPv4 mapped into it */
    uint64_t full_ns;
};

void rate_init(struct rate *rate, uint64_t interval_ns, uint64_t burst)
{
    *rate = (struct rate){.interval_ns = interval_ns, .burst = burst};
    if (interval_ns == 0)
        return;
    if (uv_mutex_init(&rate->mutex) != 0)
        out_of_memory();
    rate->clients = xcalloc((size_t)PLACES * CLIENTS_OF_A_PLACE, sizeof *rate->clients);
}

void rate_close(struct rate *rate)
{
    if (!rate->clients)
        return;
    free(rate->clients);
    uv_mutex_destroy(&rate->mutex);
    *rate = (struct rate){0};
}

/* False for what is no IP address. */
static bool read_address(const char *client, uint8_t address[static 16])
{
    static const uint8_t MAPPED[12] = {[10] = 0xFF, [11] = 0xFF};
    memcpy(address, MAPPED, sizeof MAPPED);
    if (inet_pton(AF_INET, client, address + sizeof MAPPED) == 1)
        return true;
    if (inet_pton(AF_INET6, client, address) != 1)
        return false;
    if (memcmp(address, MAPPED, sizeof MAPPED) != 0)
        memset(address + 8, 0, 8);
    return true;
}

static struct rate_client *place_of(const struct rate *rate, const uint8_t address[static 16])
{
    return rate->clients + hash_key(address, 16) % PLACES * CLIENTS_OF_A_PLACE;
}

/* The client's bucket; if it has none, that of the client whose bucket is the fullest. */
static struct rate_client *find(const struct rate *rate, const uint8_t address[static 16])
{
    struct rate_client *place = place_of(rate, address), *fullest = place;
    for (int i = 0; i < CLIENTS_OF_A_PLACE; i++) {
        if (memcmp(place[i].address, address, 16) == 0)
            return &place[i];
        if (place[i].full_ns < fullest->full_ns)
            fullest = &place[i];
    }
    memcpy(fullest->address, address, 16);
    fullest->full_ns = 0;
    return fullest;
}

bool rate_take(struct rate *rate, const char *client, uint64_t now_ns, unsigned *retry_after_s)
{
    uint8_t address[16];
    if (rate->interval_ns == 0 || !read_address(client, address))
        return true;
    uv_mutex_lock(&rate->mutex);
    struct rate_client *bucket = find(rate, address);
    uint64_t full_ns = bucket->full_ns > now_ns ? bucket->full_ns : now_ns;
    uint64_t after_ns = full_ns + rate->interval_ns - now_ns;
    uint64_t most_ns = rate->burst * rate->interval_ns;
    bool taken = after_ns <= most_ns;
    bucket->full_ns = taken ? full_ns + rate->interval_ns : full_ns;
    uv_mutex_unlock(&rate->mutex);
    if (!taken)
        *retry_after_s = (unsigned)((after_ns - most_ns + 999999999) / 1000000000);
    return taken;
}

/* Rates per client address: a token bucket each, in a table of fixed size.
 *
 * An IPv6 client is its network of 64 bits, of which it has every address. When a place of the
 * table is full, the client that is nearest to a full bucket is forgotten, so that a flood from
 * many addresses takes no memory. Any thread may call. */
#ifndef SERVER_RATE_H
#define SERVER_RATE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct rate_client;

struct rate {
    uint64_t interval_ns; /* one more each; 0: no limit */
    uint64_t burst;       /* at once, at most */
    uv_mutex_t mutex;     /* guards the next */
    struct rate_client *clients;
};

/* `interval_ns` 0 limits nothing. */
void rate_init(struct rate *rate, uint64_t interval_ns, uint64_t burst);
void rate_close(struct rate *rate);

/* Takes one from the bucket of `client`, an address as text. False if it is empty; `retry_after_s`
 * is then how long until there is one. Clients without an IP address are not limited. */
bool rate_take(struct rate *rate, const char *client, uint64_t now_ns, unsigned *retry_after_s);

#endif

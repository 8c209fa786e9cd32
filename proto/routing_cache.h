/* How often a cache of n experts would have had the expert that is needed, had it seen a sequence
 * of uses. All three policies keep the experts of the highest priorities, whatever n is, so that
 * one pass gives the hits of caches of every size (Mattson et al., 1970): a stack of experts is
 * kept of which the first n are what a cache of n holds. */
#ifndef PROTO_ROUTING_CACHE_H
#define PROTO_ROUTING_CACHE_H

#include <stddef.h>
#include <stdint.h>

enum routing_cache_policy {
    CACHE_LRU,    /* the one whose last use was the longest ago goes */
    CACHE_LFU,    /* the one with the fewest uses so far, in the cache or not; of several the LRU */
    CACHE_BELADY, /* the one whose next use is the furthest away: no policy does better */
    CACHE_POLICIES
};

/* Adds the uses that found their expert at each depth of the stack to depths[experts]: a cache of n
 * hits the sum of the first n. Caches are empty at first. sequence: [length] indices below
 * experts. */
void routing_cache_depths(const uint16_t *sequence, size_t length, size_t experts,
                          enum routing_cache_policy policy, uint64_t *depths);

#endif

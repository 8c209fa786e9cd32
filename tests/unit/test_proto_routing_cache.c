/* routing_cache: hits of caches of every size, against caches that are simulated one by one. */
#include <stdbool.h>
#include <string.h>

#include "proto/routing_cache.h"
#include "test_proto_support.h"

enum { EXPERTS = 12, LENGTH = 2000 };

static uint16_t sequence[LENGTH];

/* Some experts more often than others, in runs. */
static void fill(uint32_t seed)
{
    uint32_t state = seed;
    for (size_t i = 0; i < LENGTH; i++) {
        state = state * 1664525 + 1013904223;
        const uint32_t random = state >> 16;
        sequence[i] = i >= 4 && random % 3 == 0 ? sequence[i - 1 - random / 3 % 4]
                                                : (uint16_t)(random % EXPERTS * (random % 7) / 6);
    }
}

static size_t next_use(size_t after, uint16_t expert)
{
    size_t i = after + 1;
    while (i < LENGTH && sequence[i] != expert)
        i++;
    return i;
}

/* Smaller goes first. */
static double worth(enum routing_cache_policy policy, size_t now, uint16_t expert)
{
    double uses = 0, last = -1;
    for (size_t i = 0; i < now; i++)
        if (sequence[i] == expert) {
            uses++;
            last = (double)i;
        }
    return policy == CACHE_LRU   ? last
           : policy == CACHE_LFU ? uses * LENGTH + last
                                 : -(double)next_use(now - 1, expert);
}

static uint64_t hits_of(size_t size, enum routing_cache_policy policy)
{
    uint16_t held[EXPERTS];
    size_t count = 0;
    uint64_t hits = 0;
    for (size_t now = 0; now < LENGTH; now++) {
        size_t place = 0, worst = 0;
        while (place < count && held[place] != sequence[now])
            place++;
        hits += place < count;
        if (place < count)
            continue;
        if (count < size) {
            held[count++] = sequence[now];
            continue;
        }
        for (size_t i = 1; i < count; i++)
            if (worth(policy, now, held[i]) < worth(policy, now, held[worst]))
                worst = i;
        held[worst] = sequence[now];
    }
    return hits;
}

START_TEST(every_size_at_once)
{
    for (uint32_t seed = 1; seed <= 2; seed++)
        for (int policy = 0; policy < CACHE_POLICIES; policy++) {
            uint64_t depths[EXPERTS] = {0}, hits = 0;
            fill(seed);
            routing_cache_depths(sequence, LENGTH, EXPERTS, (enum routing_cache_policy)policy,
                                 depths);
            for (size_t size = 1; size <= EXPERTS; size++) {
                hits += depths[size - 1];
                const uint64_t expected = hits_of(size, (enum routing_cache_policy)policy);
                ck_assert_msg(hits == expected, "policy %d, size %zu: %lu hits, expected %lu",
                              policy, size, hits, expected);
            }
        }
}
END_TEST

START_TEST(by_hand)
{
    static const uint16_t uses[] = {0, 1, 0, 2, 0, 1};
    uint64_t lru[3] = {0}, best[3] = {0};
    routing_cache_depths(uses, 6, 3, CACHE_LRU, lru);
    routing_cache_depths(uses, 6, 3, CACHE_BELADY, best);
    ck_assert_mem_eq(lru, ((const uint64_t[]){0, 2, 1}), sizeof lru);
    ck_assert_mem_eq(best, ((const uint64_t[]){0, 2, 1}), sizeof best);
    routing_cache_depths(uses, 0, 3, CACHE_LFU, lru); /* nothing was used */
    ck_assert_uint_eq(lru[1], 2);
}
END_TEST

RUN_TESTS("proto/routing_cache", every_size_at_once, by_hand)

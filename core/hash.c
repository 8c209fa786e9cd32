/* FNV-1a with a random start would not do: two texts whose hashes collide for one start collide for
 * one in 256 of all. */
#include "core/hash.h"

#include <pthread.h>
#include <sys/random.h>
#include <time.h>

static struct hash_secret process_secret;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Early at boot there may be none: then what is hard to guess, for that is better than 0. */
static void choose_secret(void)
{
    struct timespec now;
    if (getrandom(&process_secret, sizeof process_secret, GRND_NONBLOCK) ==
        (ssize_t)sizeof process_secret)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    process_secret = (struct hash_secret){{(uint64_t)now.tv_nsec, (uint64_t)(uintptr_t)&now}};
}

struct sip {
    uint64_t a, b, c, d;
};

static inline uint64_t rotated(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void mix(struct sip *sip)
{
    sip->a += sip->b;
    sip->c += sip->d;
    sip->b = rotated(sip->b, 13) ^ sip->a;
    sip->d = rotated(sip->d, 16) ^ sip->c;
    sip->a = rotated(sip->a, 32) + sip->d;
    sip->c += sip->b;
    sip->d = rotated(sip->d, 21) ^ sip->a;
    sip->b = rotated(sip->b, 17) ^ sip->c;
    sip->c = rotated(sip->c, 32);
}

static inline void take(struct sip *sip, uint64_t word)
{
    sip->d ^= word;
    mix(sip);
    sip->a ^= word;
}

uint64_t hash_sip(const struct hash_secret *secret, const void *bytes, size_t count)
{
    const uint64_t *numbers = secret->numbers;
    const unsigned char *at = bytes;
    struct sip sip = {
        numbers[0] ^ UINT64_C(0x736F6D6570736575), numbers[1] ^ UINT64_C(0x646F72616E646F6D),
        numbers[0] ^ UINT64_C(0x6C7967656E657261), numbers[1] ^ UINT64_C(0x7465646279746573)};
    uint64_t word, last = (uint64_t)count << 56;
    size_t left = count;
    for (; left >= sizeof word; left -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        take(&sip, word);
    }
    for (size_t i = 0; i < left; i++)
        last |= (uint64_t)at[i] << 8 * i;
    take(&sip, last);
    sip.c ^= 0xFF;
    for (int i = 0; i < 3; i++)
        mix(&sip);
    return sip.a ^ sip.b ^ sip.c ^ sip.d;
}

uint64_t hash_key(const void *bytes, size_t count)
{
    pthread_once(&once, choose_secret);
    return hash_sip(&process_secret, bytes, count);
}

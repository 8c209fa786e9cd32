/* Hashes: one for tables, which nobody outside the process can make collide, and one that is the
 * same everywhere, to notice changes. */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_BASIS UINT64_C(0xCBF29CE484222325)

/* FNV-1a. Goes on from `hash`: HASH_BASIS, or what this returned for the bytes before. Whoever
 * chooses the bytes can make it collide: for tables use hash_key(). */
static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001B3);
    return hash;
}

struct hash_secret {
    uint64_t numbers[2];
};

/* SipHash-1-3 (Aumasson and Bernstein 2012). */
uint64_t hash_sip(const struct hash_secret *secret, const void *bytes, size_t count);

/* The same with a random secret of the process: what is in a table must not depend on it, only how
 * long it takes to find. */
uint64_t hash_key(const void *bytes, size_t count);

static inline uint64_t hash_text(const char *text)
{
    return hash_key(text, strlen(text));
}

#endif

/* FNV-1a, for tables and to notice changes. Whoever chooses the bytes can make it collide: the
 * callers say why that does no harm. */
#ifndef CORE_HASH_H
#define CORE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_BASIS UINT64_C(0xCBF29CE484222325)

/* Goes on from `hash`: HASH_BASIS, or what this returned for the bytes before. */
static inline uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * UINT64_C(0x100000001B3);
    return hash;
}

/* For a table: its low bits depend on all bytes. */
static inline uint64_t hash_key(const void *bytes, size_t count)
{
    uint64_t hash = hash_bytes(HASH_BASIS, bytes, count);
    return hash ^ hash >> 32;
}

static inline uint64_t hash_text(const char *text)
{
    return hash_key(text, strlen(text));
}

#endif

/* Integers as bytes, each in as few as it needs. The same calls write and read, so that what is
 * written and what is read cannot differ: a function that walks the fields of a struct serves both.
 * Reading is of bytes that nobody vouches for. */
#ifndef SERVER_PACKED_H
#define SERVER_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

struct packed {
    struct buffer *out; /* NULL: reads [at, end) */
    const unsigned char *at, *end;
    bool failed; /* from then on everything that is read is 0 */
};

/* Counts are below 2^56: what is larger was never counted. */
void packed_count(struct packed *packed, uint64_t *value);

/* What may be negative. */
void packed_sum(struct packed *packed, __int128 *value);

/* A count below `limit`; reading anything else fails. */
void packed_index(struct packed *packed, uint64_t *value, uint64_t limit);

void packed_flag(struct packed *packed, bool *value);

/* A string in a place of `size` bytes. */
void packed_text(struct packed *packed, char *text, size_t size);

#endif

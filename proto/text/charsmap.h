/* The normalizer that SentencePiece compiles into a table ("Precompiled": XLM-R, T5, nomic). */
#ifndef PROTO_TEXT_CHARSMAP_H
#define PROTO_TEXT_CHARSMAP_H

#include <stdint.h>

#include "core/error.h"
#include "proto/buffer.h"

struct charsmap {
    uint32_t *units; /* a double array; owned, with the texts behind it */
    size_t unit_count;
    const char *texts; /* each ends with a NUL */
    size_t text_bytes;
};

/* Reads the base64 text of tokenizer.json. */
MUST_CHECK int charsmap_init(struct charsmap *map, const char *base64, struct error *err);
void charsmap_close(struct charsmap *map);

void charsmap_append(const struct charsmap *map, struct buffer *to, const char *text,
                     size_t length);

#endif

/* Tokens by id, the model's tokens by text, and all tokens that a text begins with. */
#ifndef PROTO_TEXT_VOCABULARY_H
#define PROTO_TEXT_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "proto/buffer.h"

/* Published vocabularies have up to 262,144 tokens, the longest of 256 bytes. */
enum { VOCABULARY_MAX_TOKENS = 1 << 21, TOKEN_MAX_BYTES = 1024 };

enum token_flag {
    TOKEN_PRESENT = 1,
    TOKEN_ADDED = 2,      /* found before the model sees the text */
    TOKEN_SPECIAL = 4,    /* left out of decoded text when that is asked for */
    TOKEN_NORMALIZED = 8, /* added, and decoded to what the normalizer makes of it */
};

struct token {
    uint32_t offset;
    uint16_t length;
    uint16_t flags;
};

struct vocabulary {
    struct token *tokens; /* by id; absent ids have no flags */
    size_t size;          /* highest id + 1 */
    size_t longest;       /* bytes of the longest token */
    struct buffer texts;
    int32_t *slots; /* the model's tokens by hash; -1: free */
    size_t slot_mask;
};

void vocabulary_init(struct vocabulary *vocabulary);
void vocabulary_close(struct vocabulary *vocabulary);

/* Room for ids below `size`. */
MUST_CHECK int vocabulary_grow(struct vocabulary *vocabulary, size_t size, struct error *err);

/* Gives an id below the size its text. */
MUST_CHECK int vocabulary_put(struct vocabulary *vocabulary, size_t id, const char *text,
                              size_t length, struct error *err);

/* Makes all tokens that are there now those that vocabulary_find() finds: of equal ones the last.
 */
MUST_CHECK int vocabulary_index(struct vocabulary *vocabulary, struct error *err);

/* The id of a token of the model; -1: there is none. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t length);

/* The text of an id, not NUL-terminated; NULL when no token has it. */
const char *vocabulary_text(const struct vocabulary *vocabulary, int64_t id, size_t *length);

#endif

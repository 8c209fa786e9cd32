/* WordPiece: from the left, the longest token each time; a word that cannot be covered so is one
 * unknown token. */
#ifndef PROTO_TEXT_WORDPIECE_H
#define PROTO_TEXT_WORDPIECE_H

#include "proto/text/vocabulary.h"

/* BERT's are 2 ("##") and 100; looking for the longest takes time that grows with its square. */
enum { WORDPIECE_MAX_PREFIX = 16, WORDPIECE_MAX_CHARACTERS = 1000 };

struct wordpiece {
    const struct vocabulary *vocabulary;
    char prefix[WORDPIECE_MAX_PREFIX + 1]; /* of a token that continues a word */
    int64_t max_characters;                /* a longer word is unknown */
    int32_t unknown;
};

/* Appends int32 ids for a word. */
void wordpiece_append(const struct wordpiece *wordpiece, const char *word, size_t length,
                      struct buffer *ids);

#endif

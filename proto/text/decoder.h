/* Tokens back to text: the decoders of tokenizer.json as rules for one token, and for the start of
 * the whole. */
#ifndef PROTO_TEXT_DECODER_H
#define PROTO_TEXT_DECODER_H

#include <stdbool.h>

#include "proto/text/byte_level.h"

enum { DECODER_MAX_RULES = 8 };

enum decoder_rule_kind {
    DECODE_BYTE_LEVEL,    /* printable characters to the bytes they stand for */
    DECODE_BYTE_FALLBACK, /* <0x0A> to its byte */
    DECODE_REPLACE,       /* `find` by `content` */
    DECODE_METASPACE,     /* `find` by a blank, but not in the first token */
    DECODE_WORDPIECE,     /* `find`, a prefix, joins a token to the one before it */
    DECODE_STRIP,         /* up to `start` and `stop` of `find`, one character, at the ends */
    DECODE_FUSE,          /* rules behind it are for the whole text */
};

struct decoder_rule {
    enum decoder_rule_kind kind;
    char *find, *content; /* owned */
    size_t start, stop;
    bool prepended; /* of metaspace: the first token's blank was not in the text */
    bool cleanup;   /* of WordPiece: no blanks before punctuation */
};

struct decoder {
    struct decoder_rule rules[DECODER_MAX_RULES];
    size_t count;
    bool joins; /* tokens follow each other; else there is a blank between them */
};

void text_decoder_close(struct decoder *decoder);

#endif

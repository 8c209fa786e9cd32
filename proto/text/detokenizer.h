/* Text out of token ids, one at a time, as they are generated: never half a character.
 *
 * What is added up is what tokenizer_decode() gives for all ids at once, but for one thing: bytes
 * of byte-fallback tokens come out as soon as they make a character, so that where such a run
 * breaks off, the characters before the break are already there; the library has U+FFFD for each
 * byte. */
#ifndef PROTO_TEXT_DETOKENIZER_H
#define PROTO_TEXT_DETOKENIZER_H

#include "proto/text/tokenizer.h"

struct detokenizer {
    const struct tokenizer *tokenizer;
    bool skip_special;
    bool whole;              /* runs of bytes are judged as a whole */
    bool started;            /* a token has been added */
    size_t strip;            /* characters that may still be stripped from the start */
    struct buffer bytes;     /* the start of a character, or a run of bytes */
    struct buffer one, next; /* the token at hand between two rules */
};

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer,
                      bool skip_special);
void detokenizer_close(struct detokenizer *detokenizer);

/* Appends the characters that are complete with this token. An id without a token is an error. */
MUST_CHECK int detokenizer_add(struct detokenizer *detokenizer, int32_t id, struct buffer *text,
                               struct error *err);

/* The end: bytes that are left over become U+FFFD. */
void detokenizer_end(struct detokenizer *detokenizer, struct buffer *text);

/* Appends the bytes that a token stands for inside a text, which may be part of a character; of a
 * special token its name. False: the id has no token. */
bool tokenizer_token_bytes(const struct tokenizer *tokenizer, int32_t id, struct buffer *bytes);

#endif

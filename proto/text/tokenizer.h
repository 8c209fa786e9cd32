/* Text to token ids and back, as a tokenizer.json says: byte-level BPE, SentencePiece's BPE with
 * byte fallback, Unigram and WordPiece, with the results of the `tokenizers` library.
 *
 * A tokenizer does not change once it is loaded: any number of threads may use one. What it does
 * not know it refuses when it is loaded, with the JSON path; TEXT.md lists what it knows. */
#ifndef PROTO_TEXT_TOKENIZER_H
#define PROTO_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "proto/buffer.h"

/* Text that is encoded at once, about a million tokens. Encoding takes up to two hundred times its
 * bytes for a while, in the worst case; some ten times for usual text. */
enum { TOKENIZER_MAX_TEXT_BYTES = 4 << 20 };

struct tokenizer;

/* Reads a tokenizer.json. NULL with an error; caller frees. */
MUST_CHECK struct tokenizer *tokenizer_load(const char *path, struct error *err);
/* The same from memory. */
MUST_CHECK struct tokenizer *tokenizer_new(const char *json, size_t length, struct error *err);
void tokenizer_free(struct tokenizer *tokenizer);

/* ---- text to ids ---- */

/* Token ids, made by a tokenizer; caller closes. */
struct token_ids {
    int32_t *ids; /* owned */
    size_t count;
};

/* Encodes UTF-8. `add_special` adds what the post-processor puts around a text (<s>, [CLS]);
 * special tokens that are written in the text are found either way. */
MUST_CHECK int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                                bool add_special, struct token_ids *tokens, struct error *err);
void token_ids_close(struct token_ids *tokens);

/* How many tokens a text has at least, by its bytes alone: they over those of the longest token. 0
 * where that proves nothing: a tokenizer may leave white space out, or have one token for all that
 * it does not know. */
size_t tokenizer_fewest(const struct tokenizer *tokenizer, const char *text, size_t length);

/* ---- ids to text ---- */

/* Appends the text of all ids, as the library does: bytes that are not UTF-8 become U+FFFD.
 * `skip_special` leaves special tokens out. An id without a token is an error. */
MUST_CHECK int tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count,
                                bool skip_special, struct buffer *text, struct error *err);

/* ---- the vocabulary ---- */

/* The highest id + 1. */
size_t tokenizer_size(const struct tokenizer *tokenizer);

/* The id of a token by its text as tokenizer.json writes it; -1: there is none. */
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token);

/* A token as tokenizer.json writes it, not NUL-terminated; NULL: the id has none. */
const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *length);

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);

#endif

/* The text side of a language model, from its directory: tokenizer.json, tokenizer_config.json
 * (chat_template, bos_token, add_bos_token), chat_template.jinja and generation_config.json
 * (eos_token_id, recommended sampling).
 *
 * A language does not change once it is loaded: any number of threads may use one. All files are
 * untrusted and bounded. */
#ifndef PROTO_LANGUAGE_H
#define PROTO_LANGUAGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "core/error.h"
#include "core/sampler.h"
#include "proto/buffer.h"
#include "proto/text/detokenizer.h"
#include "proto/text/stops.h"
#include "proto/text/tokenizer.h"

struct language;

/* NULL with an error; ERROR_NOT_FOUND where there is no tokenizer.json, so that the model takes and
 * gives token ids only. Caller frees. */
MUST_CHECK struct language *language_load(const char *directory, struct error *err);
void language_free(struct language *language);

/* Refuses a tokenizer, or an end of sequence, that has ids beyond the model's vocabulary. A model
 * may have more than its tokenizer: published ones are padded. */
MUST_CHECK int language_check(const struct language *language, size_t vocabulary,
                              struct error *err);

/* ---- text to ids ---- */

/* Ids of UTF-8 text; caller closes `tokens`. `special`: a prompt of its own, with what the
 * tokenizer puts around a text (BOS, [CLS]); without, e.g. text that a chat template made, which
 * writes its BOS itself. Special tokens that are written in the text are found either way. */
MUST_CHECK int language_encode(const struct language *language, const char *text, size_t length,
                               bool special, struct token_ids *tokens, struct error *err);

/* How many ids a text has at least, by its bytes alone (tokenizer.h). */
size_t language_fewest(const struct language *language, const char *text, size_t length);

/* ---- chats ---- */

/* Why there are no chats: no template, or what in it is not supported, with line and column. NULL:
 * there are. */
const char *language_chat_refusal(const struct language *language);

/* Appends the text of a chat. `variables` is what the template may ask for: "messages",
 * "add_generation_prompt", ...; special tokens are added. `now` is for templates that tell the
 * date. Bounded in steps and memory, and in text by the buffer's limit. */
MUST_CHECK int language_render(const struct language *language, const json_t *variables, time_t now,
                               struct buffer *text, struct error *err);

/* ---- ids to text ---- */

/* Appends the text of ids. `special`: also that of special tokens. An id without a token is an
 * error. */
MUST_CHECK int language_decode(const struct language *language, const int32_t *ids, size_t count,
                               bool special, struct buffer *text, struct error *err);

/* Appends the bytes of one token as they are inside a text, special ones too; they may be part of
 * a character. Nothing for an id without a token. */
void language_token_bytes(const struct language *language, int32_t id, struct buffer *bytes);

/* Where in a prompt's text each of its ids begins: how many characters are complete before it.
 * `text` is what language_encode() made the ids of; what it put around the text has no length.
 * NULL: the text is what language_decode() makes of the ids, with special tokens. */
MUST_CHECK int language_locate(const struct language *language, const struct token_ids *tokens,
                               const char *text, size_t length, int32_t *offsets,
                               struct error *err);

/* Whether a generated id ends the answer: an "eos_token_id" of generation_config.json, else the
 * eos_token of tokenizer_config.json. */
bool language_is_stop(const struct language *language, int32_t id);

/* What generation_config.json recommends for what a request leaves out; SAMPLER_DEFAULTS where it
 * says nothing. Temperature, top_k, top_p and min_p count only with "do_sample": true. */
const struct sampler_options *language_sampling(const struct language *language);

/* ---- ids to text, as they are generated ---- */

/* Text of one answer, up to a stop string, in whole characters. */
struct text_stream {
    const struct language *language;
    struct detokenizer detokenizer;
    struct stops stops;
    struct buffer piece; /* the text of one token */
    size_t characters;   /* that are complete; what `stops` holds back is among them */
};

/* Copies the stop strings (at most STOPS_MAX). On failure there is nothing to close. */
MUST_CHECK int text_stream_init(struct text_stream *stream, const struct language *language,
                                const char *const *stops, size_t stop_count, struct error *err);
void text_stream_close(struct text_stream *stream);

/* Appends to `out` what is now certain to belong to the answer: nothing of a character that is not
 * complete, or of what may be the beginning of a stop string. Special tokens, and ids without a
 * token (padding of the vocabulary), have no text. True: a stop string was found, `out` ends before
 * it, and nothing more comes. A failed `out` says that memory or its limit was not enough. */
bool text_stream_add(struct text_stream *stream, int32_t id, struct buffer *out);

/* The answer ends here: appends what was held back. True: up to a stop string in it. */
bool text_stream_end(struct text_stream *stream, struct buffer *out);

#endif

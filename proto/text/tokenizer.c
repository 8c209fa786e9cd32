/* Encoding: added tokens in the raw text, the normalizer between them, added tokens in what it
 * makes, words between those, the model for each word. */
#include "proto/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/tokenizer_private.h"
#include "proto/text/unicode.h"

/* What the steps may take for each byte of the text, and for short texts: together 208 bytes. The
 * longest that a byte becomes when it is normalized and mapped is some dozen; a piece, a symbol and
 * a merge that is looked at have 24, 12 and 16 bytes, and each merge brings two more. */
enum {
    TEXT_LEAST = 1 << 16,
    TEXT_SHARE =
        16, /* of which there are four: normalized and cut text, and what is made of them */
    LIST_SHARE = 24, /* two of them */
    IDS_SHARE = 8,
    SYMBOLS_SHARE = 24,
    HEAP_SHARE = 64,
};

/* One encoding under way. */
struct encoding {
    const struct tokenizer *tokenizer;
    struct buffer ids; /* of int32 */
    struct buffer normalized;
    struct pieces pieces;
    struct bpe_scratch bpe;
    struct buffer unigram;
    uint64_t steps_left; /* of patterns */
    struct error *err;
};

static void encoding_init(struct encoding *encoding, const struct tokenizer *tokenizer,
                          size_t length, struct error *err)
{
    *encoding = (struct encoding){.tokenizer = tokenizer, .steps_left = PATTERN_STEPS, .err = err};
    buffer_init(&encoding->ids, TEXT_LEAST + length * IDS_SHARE);
    buffer_init(&encoding->normalized, TEXT_LEAST + length * TEXT_SHARE);
    pieces_init(&encoding->pieces, TEXT_LEAST + length * TEXT_SHARE,
                TEXT_LEAST + length * LIST_SHARE);
    buffer_init(&encoding->bpe.symbols, TEXT_LEAST + length * SYMBOLS_SHARE);
    buffer_init(&encoding->bpe.heap, TEXT_LEAST + length * HEAP_SHARE);
    buffer_init(&encoding->unigram, TEXT_LEAST + length * HEAP_SHARE);
}

static void encoding_close(struct encoding *encoding)
{
    buffer_close(&encoding->ids);
    buffer_close(&encoding->normalized);
    pieces_close(&encoding->pieces);
    buffer_close(&encoding->bpe.symbols);
    buffer_close(&encoding->bpe.heap);
    buffer_close(&encoding->unigram);
}

/* ---- words ---- */

static int encode_word(struct encoding *encoding, const char *word, size_t length)
{
    const struct model *model = &encoding->tokenizer->model;
    int result = 0;
    if (model->kind == MODEL_BPE)
        bpe_append(&model->bpe, word, length, &encoding->bpe, &encoding->ids);
    else if (model->kind == MODEL_WORDPIECE)
        wordpiece_append(&model->wordpiece, word, length, &encoding->ids);
    else
        result = unigram_append(&model->unigram, word, length, &encoding->unigram, &encoding->ids,
                                encoding->err);
    if (encoding->ids.failed)
        return buffer_error(&encoding->ids, "the list of token ids", "send shorter text",
                            encoding->err);
    return result;
}

/* Text without added tokens. */
static int encode_plain(struct encoding *encoding, const char *text, size_t length, bool first)
{
    struct pieces *pieces = &encoding->pieces;
    pieces->text.length = 0;
    buffer_append(&pieces->text, text, length);
    if (pieces->text.failed)
        return buffer_error(&pieces->text, "the text", "send shorter text", encoding->err);
    if (splitter_run(&encoding->tokenizer->splitter, pieces, first, &encoding->steps_left,
                     encoding->err) != 0)
        return -1;
    size_t count;
    const struct piece *list = pieces_list(pieces, &count);
    for (size_t i = 0; i < count; i++)
        if (encode_word(encoding, pieces->text.data + list[i].start, list[i].length) != 0)
            return -1;
    return 0;
}

/* ---- added tokens ---- */

/* The longest added token at `at`; NULL: none. */
static const struct word *added_at(const struct added_set *set, const char *at, const char *end)
{
    const struct word *longest = NULL;
    struct lexicon_walk walk = lexicon_begin(&set->lexicon);
    while (at < end && lexicon_step(&walk, (unsigned char)*at++)) {
        const struct word *word = lexicon_word(&walk);
        longest = word ? word : longest;
    }
    return longest;
}

static bool word_before(const char *text, const char *at)
{
    const char *last = at > text ? unicode_previous(at) : NULL;
    return last && unicode_is_word(unicode_next(&last));
}

static bool word_behind(const char *at, const char *end)
{
    return at < end && unicode_is_word(unicode_next(&at));
}

static const char *skip_spaces_back(const char *text, const char *at)
{
    while (at > text) {
        const char *last = unicode_previous(at), *next = last;
        if (!unicode_is_space(unicode_next(&next)))
            break;
        at = last;
    }
    return at;
}

static const char *skip_spaces(const char *at, const char *end)
{
    for (const char *next = at; at < end; at = next)
        if (!unicode_is_space(unicode_next(&next)))
            break;
    return at;
}

/* What is between added tokens goes on to `plain`. `first`: the text begins the input. */
static int encode_around_added(struct encoding *encoding, const struct added_set *set,
                               struct piece whole, const char *text,
                               int (*plain)(struct encoding *encoding, const char *text,
                                            size_t length, bool first))
{
    const char *end = text + whole.length, *done = text;
    for (const char *at = text; set->lexicon.count > 0 && at < end;) {
        const struct word *word = added_at(set, at, end);
        if (!word) {
            at++;
            continue;
        }
        const struct added_token *token = &encoding->tokenizer->added[word->id];
        const char *start = at, *stop = at + word->length;
        at = stop;
        if (token->single_word && (word_before(text, start) || word_behind(stop, end)))
            continue;
        if (token->left_strip)
            start = skip_spaces_back(done < start ? done : start, start);
        if (token->right_strip)
            stop = skip_spaces(stop, end);
        if (done < start &&
            plain(encoding, done, (size_t)(start - done), whole.first && done == text) != 0)
            return -1;
        buffer_append(&encoding->ids, &token->id, sizeof token->id);
        done = stop;
    }
    return done < end ? plain(encoding, done, (size_t)(end - done), whole.first && done == text)
                      : 0;
}

static int encode_raw(struct encoding *encoding, const char *text, size_t length, bool first)
{
    struct buffer *normalized = &encoding->normalized;
    normalizer_run(&encoding->tokenizer->normalizer, text, length, &encoding->steps_left,
                   normalized);
    if (normalized->failed)
        return buffer_error(normalized, "the normalized text", "send shorter text", encoding->err);
    return encode_around_added(encoding, &encoding->tokenizer->normalized,
                               (struct piece){0, normalized->length, first}, normalized->data,
                               encode_plain);
}

/* ---- the whole ---- */

static void add_around(struct encoding *encoding, const struct around *around, bool wanted)
{
    if (wanted)
        buffer_append(&encoding->ids, around->ids, around->count * sizeof *around->ids);
}

static int encode(struct encoding *encoding, const char *text, size_t length, bool add_special)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    add_around(encoding, &tokenizer->before, add_special);
    if (encode_around_added(encoding, &tokenizer->raw, (struct piece){0, length, true}, text,
                            encode_raw) != 0)
        return -1;
    add_around(encoding, &tokenizer->after, add_special);
    if (encoding->ids.failed)
        return buffer_error(&encoding->ids, "the list of token ids", "send shorter text",
                            encoding->err);
    return 0;
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                     bool add_special, struct token_ids *tokens, struct error *err)
{
    *tokens = (struct token_ids){0};
    if (length > TOKENIZER_MAX_TEXT_BYTES)
        return error_set(err, ERROR_TOO_LARGE, "the text has %zu bytes, at most %d are allowed",
                         length, TOKENIZER_MAX_TEXT_BYTES);
    size_t valid = unicode_check(text, length);
    if (valid < length)
        return error_set(err, ERROR_INVALID, "the text is not UTF-8 at byte %zu", valid);
    struct encoding encoding;
    encoding_init(&encoding, tokenizer, length, err);
    int result = encode(&encoding, text, length, add_special);
    if (result == 0) {
        size_t bytes;
        tokens->ids = (int32_t *)(void *)buffer_steal(&encoding.ids, &bytes);
        tokens->count = bytes / sizeof *tokens->ids;
    }
    encoding_close(&encoding);
    return result;
}

void token_ids_close(struct token_ids *tokens)
{
    free(tokens->ids);
    *tokens = (struct token_ids){0};
}

/* ---- the vocabulary ---- */

size_t tokenizer_size(const struct tokenizer *tokenizer)
{
    return tokenizer->vocabulary.size;
}

const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *length)
{
    return vocabulary_text(&tokenizer->vocabulary, id, length);
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token)
{
    size_t wanted = strlen(token), length;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        int32_t id = tokenizer->added[i].id;
        const char *text = vocabulary_text(&tokenizer->vocabulary, id, &length);
        if (length == wanted && memcmp(text, token, length) == 0)
            return id;
    }
    return vocabulary_find(&tokenizer->vocabulary, token, wanted);
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && (size_t)id < tokenizer->vocabulary.size &&
           (tokenizer->vocabulary.tokens[id].flags & TOKEN_SPECIAL);
}

/* ---- life ---- */

static void added_set_close(struct added_set *set)
{
    lexicon_close(&set->lexicon);
    buffer_close(&set->texts);
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    if (tokenizer->model.kind == MODEL_BPE)
        bpe_close(&tokenizer->model.bpe);
    if (tokenizer->model.kind == MODEL_UNIGRAM)
        unigram_close(&tokenizer->model.unigram);
    normalizer_close(&tokenizer->normalizer);
    splitter_close(&tokenizer->splitter);
    text_decoder_close(&tokenizer->decoder);
    added_set_close(&tokenizer->raw);
    added_set_close(&tokenizer->normalized);
    free(tokenizer->before.ids);
    free(tokenizer->after.ids);
    free(tokenizer->added);
    vocabulary_close(&tokenizer->vocabulary);
    free(tokenizer);
}

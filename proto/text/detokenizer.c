/* Rules make text or a byte of each token; bytes wait until they are a character. */
#include "proto/text/detokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "proto/text/tokenizer_private.h"
#include "proto/text/unicode.h"

/* A token, with what rules make of it; a run of bytes in tokenizer_decode(). */
enum { TOKEN_TEXT_LIMIT = 1 << 20, RUN_LIMIT = 1 << 30 };

void text_decoder_close(struct decoder *decoder)
{
    for (size_t i = 0; i < decoder->count; i++) {
        free(decoder->rules[i].find);
        free(decoder->rules[i].content);
    }
    decoder->count = 0;
}

/* Characters that the decoder strips from the start of the whole text. */
static size_t whole_strip(const struct decoder *decoder)
{
    bool fused = false;
    for (size_t i = 0; i < decoder->count; i++) {
        if (fused && decoder->rules[i].kind == DECODE_STRIP)
            return decoder->rules[i].start;
        fused = fused || decoder->rules[i].kind == DECODE_FUSE;
    }
    return 0;
}

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer,
                      bool skip_special)
{
    *detokenizer = (struct detokenizer){.tokenizer = tokenizer,
                                        .skip_special = skip_special,
                                        .strip = whole_strip(&tokenizer->decoder)};
    buffer_init(&detokenizer->bytes, RUN_LIMIT);
    buffer_init(&detokenizer->one, TOKEN_TEXT_LIMIT);
    buffer_init(&detokenizer->next, TOKEN_TEXT_LIMIT);
}

void detokenizer_close(struct detokenizer *detokenizer)
{
    buffer_close(&detokenizer->bytes);
    buffer_close(&detokenizer->one);
    buffer_close(&detokenizer->next);
}

/* ---- what goes out ---- */

static const char *strip_character(const struct decoder *decoder)
{
    return decoder->rules[decoder->count - 1].find; /* whole_strip() found it there */
}

static void emit(struct detokenizer *detokenizer, struct buffer *text, const char *bytes,
                 size_t length)
{
    while (detokenizer->strip > 0 && length > 0) {
        const char *blank = strip_character(&detokenizer->tokenizer->decoder);
        size_t size = strlen(blank);
        if (length < size || memcmp(bytes, blank, size) != 0) {
            detokenizer->strip = 0;
            break;
        }
        detokenizer->strip--;
        bytes += size;
        length -= size;
    }
    buffer_append(text, bytes, length);
}

/* How many bytes from `at` on belong together: a character, or bytes that can be none (*valid
 * false). 0: a character whose end is not there yet. */
static size_t next_bytes(const char *at, size_t length, bool *valid)
{
    char padded[5] = {0};
    memcpy(padded, at, length < 4 ? length : 4);
    size_t count = *padded ? utf8_character(padded) : 1;
    *valid = count > 0;
    if (count > 0)
        return count;
    /* The longest beginning that some bytes would complete. */
    static const char *const endings[] = {"\x80", "\x80\x80", "\x80\x80\x80",
                                          "\xBF", "\xBF\xBF", "\xBF\xBF\xBF"};
    size_t most = length < 3 ? length : 3, begins = 0;
    for (size_t kept = 1; kept <= most; kept++) {
        for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
            char whole[8] = {0};
            memcpy(whole, at, kept);
            strcpy(whole + kept, endings[i]);
            if (utf8_character(whole) == kept + strlen(endings[i]))
                begins = kept;
        }
    }
    return begins == length && begins > 0 ? 0 : begins > 0 ? begins : 1;
}

/* Writes out what is complete of the waiting bytes; all of it at the `end`. One U+FFFD stands for
 * bytes that belong together, or for `each` byte. */
static void emit_bytes(struct detokenizer *detokenizer, struct buffer *text, bool each, bool end)
{
    struct buffer *bytes = &detokenizer->bytes;
    size_t at = 0;
    while (at < bytes->length) {
        bool valid;
        size_t count = next_bytes(bytes->data + at, bytes->length - at, &valid);
        if (count == 0 && !end)
            break;
        if (count == 0)
            count = bytes->length - at;
        if (valid)
            emit(detokenizer, text, bytes->data + at, count);
        for (size_t i = 0; i < (valid ? 0 : each ? count : 1); i++)
            emit(detokenizer, text, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
        at += count;
    }
    if (at > 0)
        memmove(bytes->data, bytes->data + at, bytes->length - at);
    bytes->length -= at;
}

/* The run of fallback bytes is over. */
static void end_run(struct detokenizer *detokenizer, struct buffer *text)
{
    struct buffer *run = &detokenizer->bytes;
    bool valid = run->length == 0 || unicode_check(run->data, run->length) == run->length;
    if (!detokenizer->whole || valid)
        return emit_bytes(detokenizer, text, true, true);
    for (size_t i = 0; i < run->length; i++)
        emit(detokenizer, text, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
    run->length = 0;
}

/* ---- rules ---- */

/* All characters of the token stand for bytes, or the token stands for itself. */
static void decode_byte_level(struct buffer *to, const char *text, size_t length)
{
    size_t before = to->length;
    for (const char *at = text, *end = text + length; at < end;) {
        int byte = byte_level_byte(unicode_next(&at));
        if (byte < 0) {
            to->length = before;
            return buffer_append(to, text, length);
        }
        buffer_append(to, &(char){(char)byte}, 1);
    }
}

/* The byte of a token like <0x0A>; -1: it is none. */
static int fallback_byte(const char *text, size_t length)
{
    if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = text_hex_digit(text[3]), low = text_hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* English as `tokenizers` puts it together again, one pair after the other. */
static void clean_up(struct detokenizer *detokenizer)
{
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                           {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                           {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct buffer *next = &detokenizer->next, kept = detokenizer->one;
        next->length = 0;
        replace_text(next, kept.data, kept.length, pairs[i][0], pairs[i][1]);
        detokenizer->one = *next;
        *next = kept;
    }
}

static void decode_wordpiece(const struct detokenizer *detokenizer, const struct decoder_rule *rule,
                             struct buffer *to, const char *text, size_t length)
{
    size_t prefix = strlen(rule->find);
    bool joined = length >= prefix && memcmp(text, rule->find, prefix) == 0;
    if (!detokenizer->started)
        return buffer_append(to, text, length);
    if (!joined)
        buffer_text(to, " ");
    buffer_append(to, text + (joined ? prefix : 0), length - (joined ? prefix : 0));
}

static void decode_strip(const struct decoder_rule *rule, struct buffer *to, const char *text,
                         size_t length)
{
    const char *end = text + length;
    size_t size = strlen(rule->find);
    for (size_t i = 0; i < rule->start && (size_t)(end - text) >= size; i++, text += size)
        if (memcmp(text, rule->find, size) != 0)
            break;
    for (size_t i = 0; i < rule->stop && (size_t)(end - text) >= size; i++, end -= size)
        if (memcmp(end - size, rule->find, size) != 0)
            break;
    buffer_append(to, text, (size_t)(end - text));
}

/* Turns detokenizer->one into what the rule makes of it. */
static void run_rule(struct detokenizer *detokenizer, const struct decoder_rule *rule)
{
    struct buffer *to = &detokenizer->next;
    const char *text = detokenizer->one.data ? detokenizer->one.data : "";
    size_t length = detokenizer->one.length;
    to->length = 0;
    switch (rule->kind) {
    case DECODE_BYTE_LEVEL:
        decode_byte_level(to, text, length);
        break;
    case DECODE_REPLACE:
        replace_text(to, text, length, rule->find, rule->content);
        break;
    case DECODE_METASPACE:
        replace_text(to, text, length, rule->find,
                     rule->prepended && !detokenizer->started ? "" : " ");
        break;
    case DECODE_WORDPIECE:
        decode_wordpiece(detokenizer, rule, to, text, length);
        break;
    case DECODE_STRIP:
        decode_strip(rule, to, text, length);
        break;
    case DECODE_BYTE_FALLBACK:
    case DECODE_FUSE:
        return;
    }
    struct buffer kept = detokenizer->one;
    detokenizer->one = *to;
    *to = kept;
    if (rule->cleanup)
        clean_up(detokenizer);
}

/* ---- tokens ---- */

/* Turns detokenizer->one into the token's text or bytes. Returns the byte of a fallback token, else
 * -1. */
static int run_rules(struct detokenizer *detokenizer)
{
    const struct decoder *decoder = &detokenizer->tokenizer->decoder;
    int byte = -1;
    for (size_t i = 0; i < decoder->count && decoder->rules[i].kind != DECODE_FUSE; i++) {
        run_rule(detokenizer, &decoder->rules[i]);
        if (decoder->rules[i].kind == DECODE_BYTE_FALLBACK)
            byte = fallback_byte(detokenizer->one.data, detokenizer->one.length);
    }
    return byte;
}

static bool has_rule(const struct decoder *decoder, enum decoder_rule_kind kind)
{
    for (size_t i = 0; i < decoder->count && decoder->rules[i].kind != DECODE_FUSE; i++)
        if (decoder->rules[i].kind == kind)
            return true;
    return false;
}

static void add_text(struct detokenizer *detokenizer, struct buffer *text)
{
    const struct decoder *decoder = &detokenizer->tokenizer->decoder;
    bool bytes = has_rule(decoder, DECODE_BYTE_LEVEL);
    if (!decoder->joins && detokenizer->started)
        emit(detokenizer, text, " ", 1);
    int byte = run_rules(detokenizer);
    if (byte >= 0)
        buffer_append(&detokenizer->bytes, &(char){(char)byte}, 1);
    else if (bytes)
        buffer_append(&detokenizer->bytes, detokenizer->one.data, detokenizer->one.length);
    else if (has_rule(decoder, DECODE_BYTE_FALLBACK))
        end_run(detokenizer, text);
    if (bytes || (byte >= 0 && !detokenizer->whole))
        emit_bytes(detokenizer, text, byte >= 0, false);
    if (!bytes && byte < 0)
        emit(detokenizer, text, detokenizer->one.data, detokenizer->one.length);
}

/* What an added token is found by is what it decodes to. */
static void take_token(struct detokenizer *detokenizer, int32_t id, const char *token,
                       size_t length)
{
    const struct tokenizer *tokenizer = detokenizer->tokenizer;
    uint64_t steps = PATTERN_STEPS;
    detokenizer->one.length = 0;
    if (tokenizer->vocabulary.tokens[id].flags & TOKEN_NORMALIZED)
        normalizer_run(&tokenizer->normalizer, token, length, &steps, &detokenizer->one);
    else
        buffer_append(&detokenizer->one, token, length);
}

int detokenizer_add(struct detokenizer *detokenizer, int32_t id, struct buffer *text,
                    struct error *err)
{
    size_t length;
    const char *token = tokenizer_token(detokenizer->tokenizer, id, &length);
    if (!token)
        return error_set(err, ERROR_INVALID, "token %d: there is none; ids are below %zu", (int)id,
                         tokenizer_size(detokenizer->tokenizer));
    if (detokenizer->skip_special && tokenizer_is_special(detokenizer->tokenizer, id))
        return 0;
    take_token(detokenizer, id, token, length);
    add_text(detokenizer, text);
    detokenizer->started = true;
    if (detokenizer->one.failed || detokenizer->next.failed || detokenizer->bytes.failed)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for the text of a token");
    return 0;
}

/* What lacks a part is no text. */
static void fail_with_parts(struct buffer *text, const struct detokenizer *detokenizer)
{
    buffer_fail_with(text, &detokenizer->one);
    buffer_fail_with(text, &detokenizer->next);
    buffer_fail_with(text, &detokenizer->bytes);
}

void detokenizer_end(struct detokenizer *detokenizer, struct buffer *text)
{
    const struct decoder *decoder = &detokenizer->tokenizer->decoder;
    bool byte_level = decoder->count > 0 && decoder->rules[0].kind == DECODE_BYTE_LEVEL;
    if (byte_level)
        emit_bytes(detokenizer, text, false, true);
    else
        end_run(detokenizer, text);
    fail_with_parts(text, detokenizer);
}

bool tokenizer_token_bytes(const struct tokenizer *tokenizer, int32_t id, struct buffer *bytes)
{
    size_t length;
    const char *token = tokenizer_token(tokenizer, id, &length);
    if (!token)
        return false;
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, false);
    detokenizer.started = true;
    take_token(&detokenizer, id, token, length);
    if (!tokenizer->decoder.joins)
        buffer_text(bytes, " ");
    int byte = run_rules(&detokenizer);
    if (byte >= 0)
        buffer_append(bytes, &(char){(char)byte}, 1);
    else
        buffer_append(bytes, detokenizer.one.data, detokenizer.one.length);
    fail_with_parts(bytes, &detokenizer);
    detokenizer_close(&detokenizer);
    return true;
}

int tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count,
                     bool skip_special, struct buffer *text, struct error *err)
{
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, skip_special);
    detokenizer.whole = true;
    int result = 0;
    for (size_t i = 0; i < count && result == 0 && !text->failed; i++)
        result = detokenizer_add(&detokenizer, ids[i], text, err);
    detokenizer_end(&detokenizer, text);
    detokenizer_close(&detokenizer);
    if (result == 0 && text->failed)
        result = buffer_error(text, "the decoded text", "decode fewer tokens", err);
    return result;
}

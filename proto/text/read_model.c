/* "model" and "added_tokens": the vocabulary, what merges or how tokens score, and what is found
 * before the model. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/tokenizer_json.h"
#include "proto/text/unicode.h"

/* ---- the vocabulary of BPE and WordPiece: {"token": id} ---- */

static int put_token(struct vocabulary *vocabulary, const struct json_node *vocab, const char *text,
                     const json_t *value, struct error *err)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= VOCABULARY_MAX_TOKENS)
        return node_error(vocab, err, ERROR_INVALID, "'%.60s': expected an id from 0 to %d", text,
                          VOCABULARY_MAX_TOKENS - 1);
    if ((size_t)id < vocabulary->size && vocabulary->tokens[id].flags)
        return node_error(vocab, err, ERROR_INVALID, "'%.60s': another token has the id %d", text,
                          (int)id);
    /* Ids come in order: by the rest of the list at once, this would be once per token. */
    size_t size = (size_t)id + 1, count = json_object_size(vocab->json);
    if (vocabulary_grow(vocabulary, size > count ? size : count, err) != 0 ||
        vocabulary_put(vocabulary, (size_t)id, text, strlen(text), err) != 0)
        return node_prefix(vocab, err);
    return 0;
}

static int read_vocabulary(struct vocabulary *vocabulary, const struct json_node *model,
                           struct error *err)
{
    struct json_node vocab = node_member(model, "vocab");
    const char *text;
    json_t *value;
    if (node_object(&vocab, err) != 0)
        return -1;
    json_object_foreach ((json_t *)vocab.json, text, value) {
        if (put_token(vocabulary, &vocab, text, value, err) != 0)
            return -1;
    }
    if (vocabulary->size == 0)
        return node_error(&vocab, err, ERROR_INVALID, "there is no token in it");
    return vocabulary_index(vocabulary, err);
}

/* "unk_token"; -1 where it is null. */
static int read_unknown(const struct vocabulary *vocabulary, const struct json_node *model,
                        int32_t *id, struct error *err)
{
    const char *text;
    *id = -1;
    if (!node_member(model, "unk_token").json)
        return 0;
    if (node_text(model, "unk_token", NULL, &text, err) != 0)
        return -1;
    *id = vocabulary_find(vocabulary, text, strlen(text));
    return 0;
}

/* ids of <0x00> to <0xFF>; -1 where there is none. */
static void find_byte_tokens(const struct vocabulary *vocabulary, int32_t ids[256])
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        ids[byte] = vocabulary_find(vocabulary, text, 6);
    }
}

/* ---- BPE ---- */

/* What an item of "merges" joins: "a b" or ["a", "b"]. */
struct pair {
    const char *left, *right;
    size_t left_length, right_length;
};

static int read_pair(const struct json_node *item, struct pair *pair, struct error *err)
{
    const char *text = json_string_value(item->json);
    const char *blank = text ? strchr(text, ' ') : NULL;
    const char *left = json_string_value(json_array_get(item->json, 0));
    const char *right = json_string_value(json_array_get(item->json, 1));
    if (left && right && json_array_size(item->json) == 2)
        *pair = (struct pair){left, right, strlen(left), strlen(right)};
    else if (blank && !strchr(blank + 1, ' '))
        *pair = (struct pair){text, blank + 1, (size_t)(blank - text), strlen(blank + 1)};
    else
        return node_error(item, err, ERROR_INVALID, "expected \"a b\" or [\"a\", \"b\"]");
    return 0;
}

static int read_merge(struct bpe *bpe, const struct json_node *item, uint32_t rank,
                      struct error *err)
{
    struct pair pair = {0};
    char joined[2 * TOKEN_MAX_BYTES];
    if (read_pair(item, &pair, err) != 0)
        return -1;
    if (pair.left_length + pair.right_length > sizeof joined)
        return node_error(item, err, ERROR_TOO_LARGE, "its tokens are too long");
    memcpy(joined, pair.left, pair.left_length);
    memcpy(joined + pair.left_length, pair.right, pair.right_length);
    int32_t left = vocabulary_find(bpe->vocabulary, pair.left, pair.left_length);
    int32_t right = vocabulary_find(bpe->vocabulary, pair.right, pair.right_length);
    int32_t id = vocabulary_find(bpe->vocabulary, joined, pair.left_length + pair.right_length);
    if (left < 0 || right < 0 || id < 0)
        return node_error(item, err, ERROR_INVALID, "'%.60s' is not in the vocabulary",
                          left < 0    ? pair.left
                          : right < 0 ? pair.right
                                      : "what it makes");
    bpe_merge(bpe, left, right, rank, id);
    return 0;
}

static int read_merges(struct bpe *bpe, const struct json_node *merges, size_t count,
                       struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        struct json_node item = node_item(merges, i);
        if (read_merge(bpe, &item, (uint32_t)i, err) != 0)
            return -1;
    }
    return 0;
}

/* What is not done: tokens that know where in a word they are, and random merges. */
static int refuse_variants(const struct json_node *model, struct error *err)
{
    static const char *const keys[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    struct json_node dropout = node_member(model, "dropout");
    if (dropout.json && json_number_value(dropout.json) != 0.0)
        return node_error(&dropout, err, ERROR_UNSUPPORTED, "only null or 0 is supported");
    for (size_t i = 0; i < 2; i++) {
        const char *text;
        struct json_node member = node_member(model, keys[i]);
        if (node_text(model, keys[i], "", &text, err) != 0)
            return -1;
        if (*text)
            return node_error(&member, err, ERROR_UNSUPPORTED, "'%.60s' is not supported", text);
    }
    return 0;
}

/* Whether every byte has its character: then nothing is unknown. */
static bool knows_all_bytes(const struct bpe *bpe)
{
    for (uint32_t c = 0; c < BPE_TABLE_CHARACTERS; c++)
        if (byte_level_byte(c) >= 0 && bpe->character_ids[c] < 0)
            return false;
    return true;
}

static int read_bpe(void *target, const struct json_node *node, struct error *err)
{
    struct tokenizer *tokenizer = target;
    struct bpe *bpe = &tokenizer->model.bpe;
    struct json_node merges = node_member(node, "merges"), unknown = node_member(node, "unk_token");
    size_t count;
    bool bytes;
    if (refuse_variants(node, err) != 0 || node_list(&merges, &count, err) != 0 ||
        read_vocabulary(&tokenizer->vocabulary, node, err) != 0 ||
        bpe_init(bpe, &tokenizer->vocabulary, count, err) != 0)
        return -1;
    tokenizer->model.kind = MODEL_BPE;
    if (node_bool(node, "byte_fallback", &(bool){false}, &bytes, err) != 0 ||
        node_bool(node, "fuse_unk", &(bool){false}, &bpe->fuse_unknown, err) != 0 ||
        node_bool(node, "ignore_merges", &(bool){false}, &bpe->ignore_merges, err) != 0 ||
        read_unknown(bpe->vocabulary, node, &bpe->unknown, err) != 0)
        return -1;
    if (unknown.json && bpe->unknown < 0 && !knows_all_bytes(bpe))
        return node_error(&unknown, err, ERROR_INVALID, "it is not in the vocabulary");
    if (bytes)
        find_byte_tokens(bpe->vocabulary, bpe->byte_ids);
    return read_merges(bpe, &merges, count, err);
}

/* ---- Unigram: [["token", score], ...] ---- */

static int put_piece(struct vocabulary *vocabulary, const struct json_node *item, size_t id,
                     double *score, struct error *err)
{
    const json_t *text = json_array_get(item->json, 0), *value = json_array_get(item->json, 1);
    *score = json_number_value(value);
    if (json_array_size(item->json) != 2 || !json_is_string(text) || !json_is_number(value) ||
        !(fabs(*score) <= DBL_MAX))
        return node_error(item, err, ERROR_INVALID, "expected a token and its score");
    return vocabulary_put(vocabulary, id, json_string_value(text), json_string_length(text), err);
}

static int put_pieces(struct vocabulary *vocabulary, const struct json_node *vocab, double *scores,
                      struct error *err)
{
    for (size_t i = 0; i < vocabulary->size; i++) {
        struct json_node item = node_item(vocab, i);
        if (put_piece(vocabulary, &item, i, &scores[i], err) != 0)
            return -1;
    }
    return vocabulary_index(vocabulary, err);
}

static int read_unigram(void *target, const struct json_node *node, struct error *err)
{
    struct tokenizer *tokenizer = target;
    struct vocabulary *vocabulary = &tokenizer->vocabulary;
    struct unigram *unigram = &tokenizer->model.unigram;
    struct json_node vocab = node_member(node, "vocab");
    size_t count;
    int64_t unknown = -1;
    bool bytes;
    if (node_list(&vocab, &count, err) != 0 || vocabulary_grow(vocabulary, count, err) != 0)
        return -1;
    if (count == 0)
        return node_error(&vocab, err, ERROR_INVALID, "there is no token in it");
    double *scores = calloc_checked(count, sizeof *scores, err);
    if (!scores)
        return -1;
    if (put_pieces(vocabulary, &vocab, scores, err) != 0 ||
        unigram_init(unigram, vocabulary, scores, err) != 0) {
        free(scores);
        return -1;
    }
    tokenizer->model.kind = MODEL_UNIGRAM;
    if (node_member(node, "unk_id").json &&
        node_integer(node, "unk_id", 0, (int64_t)count - 1, &unknown, err) != 0)
        return -1;
    unigram->unknown = (int32_t)unknown;
    if (node_bool(node, "byte_fallback", &(bool){false}, &bytes, err) != 0)
        return -1;
    if (bytes)
        find_byte_tokens(vocabulary, unigram->byte_ids);
    return 0;
}

/* ---- WordPiece ---- */

static int read_wordpiece(void *target, const struct json_node *node, struct error *err)
{
    struct tokenizer *tokenizer = target;
    struct wordpiece *wordpiece = &tokenizer->model.wordpiece;
    struct json_node unknown = node_member(node, "unk_token");
    const char *prefix;
    if (read_vocabulary(&tokenizer->vocabulary, node, err) != 0)
        return -1;
    wordpiece->vocabulary = &tokenizer->vocabulary;
    tokenizer->model.kind = MODEL_WORDPIECE;
    if (node_text(node, "continuing_subword_prefix", NULL, &prefix, err) != 0 ||
        node_integer(node, "max_input_chars_per_word", 1, WORDPIECE_MAX_CHARACTERS,
                     &wordpiece->max_characters, err) != 0 ||
        read_unknown(&tokenizer->vocabulary, node, &wordpiece->unknown, err) != 0)
        return -1;
    if (strlen(prefix) > WORDPIECE_MAX_PREFIX)
        return node_error(node, err, ERROR_TOO_LARGE, "continuing_subword_prefix: at most %d bytes",
                          WORDPIECE_MAX_PREFIX);
    strcpy(wordpiece->prefix, prefix);
    return wordpiece->unknown >= 0
               ? 0
               : node_error(&unknown, err, ERROR_INVALID, "it is not in the vocabulary");
}

int read_model(struct tokenizer *tokenizer, const struct json_node *node, struct error *err)
{
    static const char bpe_keys[] = "dropout unk_token continuing_subword_prefix end_of_word_suffix "
                                   "fuse_unk byte_fallback ignore_merges vocab merges";
    static const struct node_kind kinds[] = {
        {"BPE", bpe_keys, read_bpe},
        {"Unigram", "unk_id vocab byte_fallback", read_unigram},
        {"WordPiece", "unk_token continuing_subword_prefix max_input_chars_per_word vocab",
         read_wordpiece},
        {NULL, NULL, NULL},
    };
    if (node->json && !json_object_get(node->json, "type")) /* files of before 2021 */
        return node_only(node, bpe_keys, err) == 0 ? read_bpe(tokenizer, node, err) : -1;
    return node_read_kind(node, kinds, tokenizer, err);
}

/* ---- added tokens ---- */

static int place_added(struct tokenizer *tokenizer, const struct json_node *item, int64_t id,
                       const char *content, struct error *err)
{
    struct vocabulary *vocabulary = &tokenizer->vocabulary;
    int32_t known = vocabulary_find(vocabulary, content, strlen(content));
    if (known >= 0 && known != id)
        return node_error(item, err, ERROR_INVALID, "'%.60s' has the id %d in the model", content,
                          (int)known);
    if (vocabulary_grow(vocabulary, (size_t)id + 1, err) != 0)
        return node_prefix(item, err);
    if (known < 0 && vocabulary->tokens[id].flags)
        return node_error(item, err, ERROR_INVALID, "another token has the id %d", (int)id);
    if (known < 0 && vocabulary_put(vocabulary, (size_t)id, content, strlen(content), err) != 0)
        return node_prefix(item, err);
    vocabulary->tokens[id].flags |= TOKEN_ADDED;
    return 0;
}

static int read_added(struct tokenizer *tokenizer, const struct json_node *item, struct error *err)
{
    static const bool no = false;
    struct added_token *token = &tokenizer->added[tokenizer->added_count];
    int64_t id;
    const char *content;
    bool special;
    if (node_only(item, "id content single_word lstrip rstrip normalized special", err) != 0 ||
        node_integer(item, "id", 0, VOCABULARY_MAX_TOKENS - 1, &id, err) != 0 ||
        node_text(item, "content", NULL, &content, err) != 0 ||
        node_bool(item, "special", &no, &special, err) != 0 ||
        node_bool(item, "single_word", &no, &token->single_word, err) != 0 ||
        node_bool(item, "lstrip", &no, &token->left_strip, err) != 0 ||
        node_bool(item, "rstrip", &no, &token->right_strip, err) != 0 ||
        node_bool(item, "normalized", &(bool){!special}, &token->normalized, err) != 0)
        return -1;
    if (!*content)
        return 0;
    token->id = (int32_t)id;
    tokenizer->added_count++;
    if (place_added(tokenizer, item, id, content, err) != 0)
        return -1;
    if (special)
        tokenizer->vocabulary.tokens[id].flags |= TOKEN_SPECIAL;
    if (token->normalized)
        tokenizer->vocabulary.tokens[id].flags |= TOKEN_NORMALIZED;
    return 0;
}

static int add_word(const struct tokenizer *tokenizer, struct buffer *texts, size_t place,
                    struct word *word, struct error *err)
{
    size_t length;
    const char *text = tokenizer_token(tokenizer, tokenizer->added[place].id, &length);
    struct buffer made;
    uint64_t steps = PATTERN_STEPS;
    buffer_init(&made, 1 << 20);
    if (tokenizer->added[place].normalized)
        normalizer_run(&tokenizer->normalizer, text, length, &steps, &made);
    else
        buffer_append(&made, text, length);
    *word = (struct word){(uint32_t)texts->length, (uint32_t)made.length, (int32_t)place};
    buffer_append(texts, made.data, made.length);
    bool failed = made.failed || texts->failed;
    buffer_close(&made);
    return failed ? error_set(err, ERROR_UNAVAILABLE, "no memory for the added tokens") : 0;
}

static int fill_set(const struct tokenizer *tokenizer, struct added_set *set, bool normalized,
                    struct error *err)
{
    size_t words = 0;
    struct word *list = calloc_checked(tokenizer->added_count + 1, sizeof *list, err);
    int result = list ? 0 : -1;
    buffer_init(&set->texts, 1 << 28);
    for (size_t i = 0; i < tokenizer->added_count && result == 0; i++) {
        if (tokenizer->added[i].normalized != normalized)
            continue;
        result = add_word(tokenizer, &set->texts, i, &list[words], err);
        words += list[words].length > 0;
    }
    /* Without memory for a text there is none to look at. */
    lexicon_init(&set->lexicon, &set->texts, list, result == 0 ? words : 0);
    return result;
}

int read_added_tokens(struct tokenizer *tokenizer, const struct json_node *node, struct error *err)
{
    size_t count = 0;
    if (node->json && node_list(node, &count, err) != 0)
        return -1;
    tokenizer->added = calloc_checked(count + 1, sizeof *tokenizer->added, err);
    if (!tokenizer->added)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct json_node item = node_item(node, i);
        if (read_added(tokenizer, &item, err) != 0)
            return -1;
    }
    if (fill_set(tokenizer, &tokenizer->raw, false, err) != 0)
        return -1;
    return fill_set(tokenizer, &tokenizer->normalized, true, err);
}

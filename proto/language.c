/* What transformers does with these files, for one text at a time. */
#include "proto/language.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/json_node.h"
#include "proto/text/template.h"
#include "proto/text/unicode.h"

/* Published models have up to four ids that end an answer. */
enum { LANGUAGE_MAX_STOPS = 64, PATH_BYTES = 4096 };

struct language {
    struct tokenizer *tokenizer;         /* owned */
    struct chat_template *chat_template; /* owned; NULL: no chats, because of `refusal` */
    char refusal[ERROR_TEXT_BYTES];
    /* tokenizer_config.json says what is put around a text: the post-processor puts nothing. */
    bool around;
    int32_t before, after; /* -1: nothing */
    int32_t stops[LANGUAGE_MAX_STOPS];
    size_t stop_count;
    struct sampler_options sampling;
};

/* ---- files ---- */

/* The tree of a file that need not be there: NULL without an error then. */
static int load_optional(const char *directory, const char *name, json_t **tree, struct error *err)
{
    char path[PATH_BYTES];
    struct error unread = ERROR_INIT;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    *tree = node_load(path, &unread);
    if (*tree && !json_is_object(*tree)) {
        json_decref(*tree);
        *tree = NULL;
        return error_set(err, ERROR_INVALID, "%s: expected an object", path);
    }
    return *tree || unread.code == ERROR_NOT_FOUND ? 0
                                                   : error_set(err, unread.code, "%s", unread.text);
}

/* Reads an optional file of the directory. */
static int read_file(struct language *language, const char *directory, const char *name,
                     int (*read)(struct language *language, const struct json_node *node,
                                 struct error *err),
                     struct error *err)
{
    json_t *tree;
    if (load_optional(directory, name, &tree, err) != 0)
        return -1;
    struct json_node node = {.json = tree};
    int result = tree ? read(language, &node, err) : 0;
    if (result != 0)
        error_prefix(err, "%s/%s", directory, name);
    json_decref(tree);
    return result;
}

/* A negative id says that there is none, as in transformers: no token has it. */
static int add_stop(struct language *language, const struct json_node *node, int64_t id,
                    struct error *err)
{
    if (id > INT32_MAX)
        return node_error(node, err, ERROR_INVALID, "%lld is no token id", (long long)id);
    if (id < 0 || language_is_stop(language, (int32_t)id))
        return 0;
    if (language->stop_count == LANGUAGE_MAX_STOPS)
        return node_error(node, err, ERROR_INVALID, "expected at most %d ids", LANGUAGE_MAX_STOPS);
    language->stops[language->stop_count++] = (int32_t)id;
    return 0;
}

/* ---- generation_config.json, config.json ---- */

/* "eos_token_id": an id, or a list of them. */
static int read_stops(struct language *language, const struct json_node *config, struct error *err)
{
    struct json_node ids = node_member(config, "eos_token_id");
    size_t count = json_is_array(ids.json) ? json_array_size(ids.json) : ids.json ? 1 : 0;
    for (size_t i = 0; i < count; i++) {
        struct json_node id = json_is_array(ids.json) ? node_item(&ids, i) : ids;
        if (!json_is_integer(id.json))
            return node_error(&id, err, ERROR_INVALID, "expected a token id");
        if (add_stop(language, &id, json_integer_value(id.json), err) != 0)
            return -1;
    }
    return 0;
}

struct range {
    double least, most;
    bool open; /* `least` itself is not allowed */
};

static int read_number(const struct json_node *config, const char *key, struct range range,
                       float *value, struct error *err)
{
    struct json_node node = node_member(config, key);
    if (!node.json)
        return 0;
    double number = json_is_number(node.json) ? json_number_value(node.json) : NAN;
    if (!(number >= range.least && number <= range.most) || (range.open && number == range.least))
        return node_error(&node, err, ERROR_INVALID, "expected a number %s %g, at most %g",
                          range.open ? "above" : "from", range.least, range.most);
    *value = (float)number;
    return 0;
}

static int read_sampling(struct language *language, const struct json_node *config,
                         struct error *err)
{
    struct sampler_options *sampling = &language->sampling;
    bool sample = false, otherwise = false;
    int64_t top_k;
    if (node_bool(config, "do_sample", &otherwise, &sample, err) != 0 ||
        read_number(config, "repetition_penalty", (struct range){0, 100, true},
                    &sampling->repetition_penalty, err) != 0)
        return -1;
    if (!sample)
        return 0;
    if (node_member(config, "top_k").json) {
        if (node_integer(config, "top_k", -1, INT32_MAX, &top_k, err) != 0)
            return -1;
        sampling->top_k = top_k < 0 ? 0 : (size_t)top_k; /* either is said for: all */
    }
    if (read_number(config, "temperature", (struct range){0, 100, false}, &sampling->temperature,
                    err) != 0 ||
        read_number(config, "top_p", (struct range){0, 1, false}, &sampling->top_p, err) != 0)
        return -1;
    return read_number(config, "min_p", (struct range){0, 1, false}, &sampling->min_p, err);
}

static int read_generation(struct language *language, const struct json_node *config,
                           struct error *err)
{
    return read_stops(language, config, err) != 0 ? -1 : read_sampling(language, config, err);
}

/* ---- tokenizer_config.json ---- */

/* The id of a special token, which is its text or an object with it; -1: there is none. */
static int read_special(const struct language *language, const struct json_node *config,
                        const char *key, int32_t *id, struct error *err)
{
    struct json_node node = node_member(config, key);
    struct json_node content = json_is_object(node.json) ? node_member(&node, "content") : node;
    *id = -1;
    if (!content.json)
        return 0;
    if (!json_is_string(content.json))
        return node_error(&node, err, ERROR_INVALID, "expected a token's text");
    *id = tokenizer_id(language->tokenizer, json_string_value(content.json));
    return 0;
}

static bool is_true(const struct json_node *config, const char *key)
{
    return json_is_true(json_object_get(config->json, key));
}

/* Whether tokenizer.json puts tokens around a text. */
static int find_around(const struct language *language, bool *around, struct error *err)
{
    struct token_ids tokens;
    if (tokenizer_encode(language->tokenizer, "", 0, true, &tokens, err) != 0)
        return -1;
    *around = tokens.count > 0;
    token_ids_close(&tokens);
    return 0;
}

/* What tokenizer.json puts around a text counts, whatever add_bos_token and add_eos_token say, as
 * in transformers 5. Where it puts nothing there, they count, as they did when they were written
 * (DeepSeek). */
static int read_tokens(struct language *language, const struct json_node *config, struct error *err)
{
    int32_t bos, eos;
    if (read_special(language, config, "bos_token", &bos, err) != 0 ||
        read_special(language, config, "eos_token", &eos, err) != 0)
        return -1;
    if (eos >= 0 && add_stop(language, config, eos, err) != 0)
        return -1;
    bool around;
    if (find_around(language, &around, err) != 0)
        return -1;
    if (around)
        return 0;
    bool add_bos = is_true(config, "add_bos_token") && node_member(config, "bos_token").json;
    bool add_eos = is_true(config, "add_eos_token") && node_member(config, "eos_token").json;
    if ((add_bos && bos < 0) || (add_eos && eos < 0))
        return node_error(config, err, ERROR_INVALID,
                          "%s is not in tokenizer.json, and add_%s says that texts have it",
                          add_bos && bos < 0 ? "bos_token" : "eos_token",
                          add_bos && bos < 0 ? "bos_token" : "eos_token");
    language->around = add_bos || add_eos;
    language->before = add_bos ? bos : -1;
    language->after = add_eos ? eos : -1;
    return 0;
}

/* ---- life ---- */

/* A model whose template is not supported still completes text; one that the machine cannot read
 * now is no reason to refuse chats as long as the model is served. */
static int load_chat_template(struct language *language, const char *directory, struct error *err)
{
    struct error own = ERROR_INIT;
    language->chat_template = chat_template_load(directory, &own);
    if (own.code == ERROR_UNAVAILABLE || own.code == ERROR_INTERNAL)
        return error_set(err, own.code, "%s", own.text);
    if (!language->chat_template)
        snprintf(language->refusal, sizeof language->refusal, "%s",
                 own.code == ERROR_NOT_FOUND ? "the model has no chat template" : own.text);
    return 0;
}

static int load_parts(struct language *language, const char *directory, struct error *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    language->tokenizer = tokenizer_load(path, err);
    if (!language->tokenizer ||
        read_file(language, directory, "generation_config.json", read_generation, err) != 0)
        return -1;
    if (language->stop_count == 0 &&
        read_file(language, directory, "config.json", read_stops, err) != 0)
        return -1;
    return read_file(language, directory, "tokenizer_config.json", read_tokens, err);
}

struct language *language_load(const char *directory, struct error *err)
{
    struct language *language = xcalloc(1, sizeof *language);
    language->sampling = SAMPLER_DEFAULTS;
    language->before = language->after = -1;
    if (load_parts(language, directory, err) == 0 &&
        load_chat_template(language, directory, err) == 0)
        return language;
    language_free(language);
    return NULL;
}

void language_free(struct language *language)
{
    if (!language)
        return;
    tokenizer_free(language->tokenizer);
    chat_template_free(language->chat_template);
    free(language);
}

int language_check(const struct language *language, size_t vocabulary, struct error *err)
{
    size_t size = tokenizer_size(language->tokenizer);
    if (size > vocabulary)
        return error_set(err, ERROR_INVALID,
                         "tokenizer.json has ids up to %zu, the model has a vocabulary of %zu",
                         size - 1, vocabulary);
    for (size_t i = 0; i < language->stop_count; i++)
        if ((size_t)language->stops[i] >= vocabulary)
            return error_set(err, ERROR_INVALID,
                             "eos_token_id %d is beyond the model's vocabulary of %zu",
                             (int)language->stops[i], vocabulary);
    return 0;
}

/* ---- text to ids ---- */

/* Puts the configured ids around those of the text. */
static int surround(const struct language *language, struct token_ids *tokens, struct error *err)
{
    size_t before = language->before >= 0, after = language->after >= 0;
    int32_t *ids = calloc_checked(tokens->count + before + after + 1, sizeof *ids, err);
    if (!ids) {
        token_ids_close(tokens);
        return -1;
    }
    if (tokens->count > 0)
        memcpy(ids + before, tokens->ids, tokens->count * sizeof *ids);
    if (before)
        ids[0] = language->before;
    if (after)
        ids[before + tokens->count] = language->after;
    size_t count = tokens->count + before + after;
    token_ids_close(tokens);
    *tokens = (struct token_ids){ids, count};
    return 0;
}

int language_encode(const struct language *language, const char *text, size_t length, bool special,
                    struct token_ids *tokens, struct error *err)
{
    bool around = special && language->around;
    if (tokenizer_encode(language->tokenizer, text, length, special && !around, tokens, err) != 0)
        return -1;
    return around ? surround(language, tokens, err) : 0;
}

size_t language_fewest(const struct language *language, const char *text, size_t length)
{
    return tokenizer_fewest(language->tokenizer, text, length);
}

/* ---- chats ---- */

const char *language_chat_refusal(const struct language *language)
{
    return language->chat_template ? NULL : language->refusal;
}

int language_render(const struct language *language, const json_t *variables, time_t now,
                    struct buffer *text, struct error *err)
{
    if (!language->chat_template)
        return error_set(err, ERROR_INVALID, "%s", language->refusal);
    return chat_template_render(language->chat_template, variables, now, text, err);
}

/* ---- ids to text ---- */

int language_decode(const struct language *language, const int32_t *ids, size_t count, bool special,
                    struct buffer *text, struct error *err)
{
    return tokenizer_decode(language->tokenizer, ids, count, !special, text, err);
}

void language_token_bytes(const struct language *language, int32_t id, struct buffer *bytes)
{
    (void)tokenizer_token_bytes(language->tokenizer, id, bytes);
}

bool language_is_stop(const struct language *language, int32_t id)
{
    for (size_t i = 0; i < language->stop_count; i++)
        if (language->stops[i] == id)
            return true;
    return false;
}

const struct sampler_options *language_sampling(const struct language *language)
{
    return &language->sampling;
}

/* Whether a special token was put around the text, in which it is not written. */
static bool is_around(const struct language *language, int32_t id, const char *text, size_t length)
{
    size_t size;
    const char *token = tokenizer_token(language->tokenizer, id, &size);
    return token && tokenizer_is_special(language->tokenizer, id) &&
           (size > length || memcmp(text, token, size) != 0);
}

/* Tokenizers that change the text have no exact places: none is beyond it. */
int language_locate(const struct language *language, const struct token_ids *tokens,
                    const char *text, size_t length, int32_t *offsets, struct error *err)
{
    struct detokenizer detokenizer;
    struct buffer piece;
    size_t bytes = 0, characters = 0, most = text ? unicode_count(text, length) : INT32_MAX;
    int result = 0;
    detokenizer_init(&detokenizer, language->tokenizer, false);
    detokenizer.whole = !text;
    buffer_init(&piece, SIZE_MAX);
    for (size_t i = 0; i < tokens->count && result == 0; i++) {
        const int32_t id = tokens->ids[i];
        offsets[i] = (int32_t)(characters < most ? characters : most);
        bytes = bytes < length ? bytes : length;
        if (text && is_around(language, id, text + bytes, length - bytes))
            continue;
        result = detokenizer_add(&detokenizer, id, &piece, err);
        bytes += piece.length;
        characters += unicode_count(piece.data, piece.length);
        piece.length = 0;
    }
    if (result == 0 && piece.failed)
        result = buffer_error(&piece, "the places of tokens", "ask for fewer", err);
    detokenizer_close(&detokenizer);
    buffer_close(&piece);
    return result;
}

/* ---- streams ---- */

int text_stream_init(struct text_stream *stream, const struct language *language,
                     const char *const *stops, size_t stop_count, struct error *err)
{
    *stream = (struct text_stream){.language = language};
    if (stops_init(&stream->stops, stops, stop_count, err) != 0)
        return -1;
    detokenizer_init(&stream->detokenizer, language->tokenizer, true);
    buffer_init(&stream->piece, SIZE_MAX);
    return 0;
}

void text_stream_close(struct text_stream *stream)
{
    detokenizer_close(&stream->detokenizer);
    stops_close(&stream->stops);
    buffer_close(&stream->piece);
}

/* Passes on what is in `piece`. */
static bool pass_on(struct text_stream *stream, struct buffer *out)
{
    bool stopped = stops_add(&stream->stops, stream->piece.data, stream->piece.length, out);
    buffer_fail_with(out, &stream->piece);
    stream->piece.length = 0;
    return stopped;
}

bool text_stream_add(struct text_stream *stream, int32_t id, struct buffer *out)
{
    size_t length;
    if (!tokenizer_token(stream->language->tokenizer, id, &length))
        return false;
    struct error err = ERROR_INIT;
    if (detokenizer_add(&stream->detokenizer, id, &stream->piece, &err) != 0)
        out->failed = out->no_memory = true;
    stream->characters += unicode_count(stream->piece.data, stream->piece.length);
    return pass_on(stream, out);
}

bool text_stream_end(struct text_stream *stream, struct buffer *out)
{
    detokenizer_end(&stream->detokenizer, &stream->piece);
    return pass_on(stream, out) || stops_end(&stream->stops, out);
}

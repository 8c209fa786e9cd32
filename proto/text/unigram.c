/* Viterbi over byte positions; unknown characters next to each other become one token. */
#include "proto/text/unigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/text/unicode.h"

/* How far below the worst token an unknown character is (SentencePiece's constant). */
#define UNKNOWN_PENALTY 10.0

/* The best way to a byte position. */
struct arrival {
    double score;
    uint32_t start; /* of the last token */
    int32_t id;     /* of it; NOWHERE: no way leads here yet */
};

enum { UNKNOWN = -1, NOWHERE = -2 };

int unigram_init(struct unigram *unigram, const struct vocabulary *vocabulary, double *scores,
                 struct error *err)
{
    *unigram = (struct unigram){.vocabulary = vocabulary, .scores = scores, .unknown = -1};
    memset(unigram->byte_ids, 0xFF, sizeof unigram->byte_ids);
    struct word *words = malloc(vocabulary->size * sizeof *words);
    if (!words)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu tokens", vocabulary->size);
    size_t count = 0;
    double worst = INFINITY;
    for (size_t id = 0; id < vocabulary->size; id++) {
        size_t length;
        vocabulary_text(vocabulary, (int64_t)id, &length);
        worst = scores[id] < worst ? scores[id] : worst;
        if (length > 0)
            words[count++] =
                (struct word){vocabulary->tokens[id].offset, (uint32_t)length, (int32_t)id};
    }
    lexicon_init(&unigram->lexicon, &vocabulary->texts, words, count);
    unigram->unknown_score = worst - UNKNOWN_PENALTY;
    return 0;
}

void unigram_close(struct unigram *unigram)
{
    lexicon_close(&unigram->lexicon);
    free(unigram->scores);
}

static void arrive(struct arrival *there, double score, size_t start, int32_t id)
{
    if (there->id == NOWHERE || score > there->score)
        *there = (struct arrival){score, (uint32_t)start, id};
}

/* Every token that begins at `start`, and the unknown character where none is as long as it. */
static void leave(const struct unigram *unigram, struct arrival *ways, const char *text,
                  size_t start, size_t character, size_t length)
{
    bool known = false;
    struct lexicon_walk walk = lexicon_begin(&unigram->lexicon);
    for (size_t at = start; at < length && lexicon_step(&walk, (unsigned char)text[at]); at++) {
        const struct word *word = lexicon_word(&walk);
        if (!word)
            continue;
        arrive(&ways[at + 1], unigram->scores[word->id] + ways[start].score, start, word->id);
        known = known || walk.depth == character;
    }
    if (!known)
        arrive(&ways[start + character], unigram->unknown_score + ways[start].score, start,
               UNKNOWN);
}

/* Turns the chain of arrivals around: each start then says where its token ends. */
static void turn_around(const struct unigram *unigram, struct arrival *ways, size_t length)
{
    size_t end = length;
    uint32_t follows = (uint32_t)length; /* where the token behind `end` ends */
    int32_t follows_id = NOWHERE;
    while (end > 0) {
        struct arrival here = ways[end];
        ways[end].start = follows;
        ways[end].id = follows_id;
        bool unknown = here.id == UNKNOWN || here.id == unigram->unknown;
        follows = (uint32_t)end;
        follows_id = unknown ? UNKNOWN : here.id;
        end = here.start;
    }
    ways[0].start = follows;
    ways[0].id = follows_id;
}

static int append_unknown(const struct unigram *unigram, const char *text, size_t length,
                          struct buffer *ids, struct error *err)
{
    int32_t id = vocabulary_find(unigram->vocabulary, text, length);
    bool bytes = id < 0;
    for (size_t i = 0; i < length && bytes; i++)
        bytes = unigram->byte_ids[(unsigned char)text[i]] >= 0;
    for (size_t i = 0; i < length && bytes; i++)
        buffer_append(ids, &unigram->byte_ids[(unsigned char)text[i]], sizeof id);
    if (bytes)
        return 0;
    if (id < 0 && unigram->unknown < 0)
        return error_set(err, ERROR_INVALID,
                         "the tokenizer has no token for '%.*s', nor one for what is unknown",
                         (int)(length < 40 ? length : 40), text);
    buffer_append(ids, id >= 0 ? &id : &unigram->unknown, sizeof id);
    return 0;
}

int unigram_append(const struct unigram *unigram, const char *text, size_t length,
                   struct buffer *scratch, struct buffer *ids, struct error *err)
{
    scratch->length = 0;
    struct arrival *ways = (void *)buffer_reserve(scratch, (length + 1) * sizeof *ways);
    if (!ways) {
        ids->failed = true;
        ids->no_memory = scratch->no_memory;
        return 0;
    }
    for (size_t i = 0; i <= length; i++)
        ways[i] = (struct arrival){.id = NOWHERE};
    for (const char *at = text; at < text + length;) {
        const char *next = at;
        unicode_next(&next);
        leave(unigram, ways, text, (size_t)(at - text), (size_t)(next - at), length);
        at = next;
    }
    turn_around(unigram, ways, length);
    for (size_t at = 0, end; at < length; at = end) {
        end = ways[at].start;
        if (ways[at].id >= 0) {
            buffer_append(ids, &ways[at].id, sizeof ways[at].id);
            continue;
        }
        while (end < length && ways[end].id == UNKNOWN)
            end = ways[end].start;
        if (append_unknown(unigram, text + at, end - at, ids, err) != 0)
            return -1;
    }
    return 0;
}

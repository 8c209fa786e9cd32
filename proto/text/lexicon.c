/* Binary search per byte: no nodes to build, and a hundred bytes are found as fast as a few. */
#include "proto/text/lexicon.h"

#include <stdlib.h>
#include <string.h>

static const char *text_of(const struct lexicon *lexicon, const struct word *word)
{
    return lexicon->texts->data + word->offset;
}

static int compare(const void *a, const void *b, void *lexicon)
{
    const struct word *x = a, *y = b;
    uint32_t shorter = x->length < y->length ? x->length : y->length;
    int order = memcmp(text_of(lexicon, x), text_of(lexicon, y), shorter);
    if (order != 0)
        return order;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool same(const struct lexicon *lexicon, const struct word *x, const struct word *y)
{
    return x->length == y->length &&
           memcmp(text_of(lexicon, x), text_of(lexicon, y), x->length) == 0;
}

void lexicon_init(struct lexicon *lexicon, const struct buffer *texts, struct word *words,
                  size_t count)
{
    *lexicon = (struct lexicon){.texts = texts, .words = words};
    if (count > 0)
        qsort_r(words, count, sizeof *words, compare, lexicon);
    for (size_t i = 0; i < count; i++) {
        if (lexicon->count > 0 && same(lexicon, &words[lexicon->count - 1], &words[i]))
            lexicon->count--;
        words[lexicon->count++] = words[i];
    }
    for (size_t i = 0; i < lexicon->count; i++)
        lexicon->first[(unsigned char)*text_of(lexicon, &words[i]) + 1] = (uint32_t)i + 1;
    for (size_t byte = 1; byte <= 256; byte++)
        if (lexicon->first[byte] == 0)
            lexicon->first[byte] = lexicon->first[byte - 1];
}

void lexicon_close(struct lexicon *lexicon)
{
    free(lexicon->words);
}

/* The first word in [low, high) whose byte at `depth` is at least `byte`. */
static size_t lower_bound(const struct lexicon_walk *walk, size_t low, unsigned int byte)
{
    size_t high = walk->high;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct word *word = &walk->lexicon->words[middle];
        const char *text = text_of(walk->lexicon, word);
        bool before = word->length <= walk->depth || (unsigned char)text[walk->depth] < byte;
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool lexicon_step(struct lexicon_walk *walk, unsigned char byte)
{
    if (walk->depth == 0) {
        walk->low = walk->lexicon->first[byte];
        walk->high = walk->lexicon->first[byte + 1];
    } else {
        walk->low = lower_bound(walk, walk->low, byte);
        walk->high = lower_bound(walk, walk->low, byte + 1u);
    }
    walk->depth++;
    return walk->low < walk->high;
}

const struct word *lexicon_word(const struct lexicon_walk *walk)
{
    const struct word *word = &walk->lexicon->words[walk->low];
    return walk->low < walk->high && word->length == walk->depth ? word : NULL;
}

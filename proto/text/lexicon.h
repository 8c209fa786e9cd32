/* Which words a text begins with, a byte at a time: sorted words and a range that narrows. */
#ifndef PROTO_TEXT_LEXICON_H
#define PROTO_TEXT_LEXICON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

struct word {
    uint32_t offset, length; /* in the lexicon's texts */
    int32_t id;
};

struct lexicon {
    const struct buffer *texts; /* not the lexicon's; may grow */
    struct word *words;         /* sorted; owned */
    size_t count;
    uint32_t first[257]; /* where the words that begin with a byte begin */
};

/* Takes over `words`, which are malloc'ed, none of them empty; of equal words the last id stays. */
void lexicon_init(struct lexicon *lexicon, const struct buffer *texts, struct word *words,
                  size_t count);
void lexicon_close(struct lexicon *lexicon);

/* A walk down one text: words that begin with the bytes so far. */
struct lexicon_walk {
    const struct lexicon *lexicon;
    size_t low, high, depth;
};

static inline struct lexicon_walk lexicon_begin(const struct lexicon *lexicon)
{
    return (struct lexicon_walk){lexicon, 0, lexicon->count, 0};
}

/* One byte further. False: no word begins so. */
bool lexicon_step(struct lexicon_walk *walk, unsigned char byte);

/* The word that ends here; NULL: none does. */
const struct word *lexicon_word(const struct lexicon_walk *walk);

#endif

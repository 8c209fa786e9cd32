/* The unigram model: of all ways to cut a text into tokens the one whose scores add up highest. */
#ifndef PROTO_TEXT_UNIGRAM_H
#define PROTO_TEXT_UNIGRAM_H

#include "proto/text/lexicon.h"
#include "proto/text/vocabulary.h"

struct unigram {
    const struct vocabulary *vocabulary;
    struct lexicon lexicon;
    double *scores; /* by id; owned */
    double unknown_score;
    int32_t unknown;       /* -1: unknown characters are an error */
    int32_t byte_ids[256]; /* -1: no fallback */
};

/* Takes over `scores`, one for each id of the vocabulary, which must outlive it. */
MUST_CHECK int unigram_init(struct unigram *unigram, const struct vocabulary *vocabulary,
                            double *scores, struct error *err);
void unigram_close(struct unigram *unigram);

/* Appends int32 ids; `scratch` is kept from text to text. */
MUST_CHECK int unigram_append(const struct unigram *unigram, const char *text, size_t length,
                              struct buffer *scratch, struct buffer *ids, struct error *err);

#endif

/* Byte-pair encoding: of all pairs that may merge, the one that was learned first, until none is
 * left. Also SentencePiece's, whose unknown characters fall back on bytes. */
#ifndef PROTO_TEXT_BPE_H
#define PROTO_TEXT_BPE_H

#include <stdbool.h>

#include "proto/text/vocabulary.h"

/* Characters whose id is kept in a table: those of the byte-level alphabet. */
enum { BPE_TABLE_CHARACTERS = 0x180 };

struct merge {
    int32_t left, right; /* left -1: a free slot */
    uint32_t rank;
    int32_t id;
};

struct bpe {
    const struct vocabulary *vocabulary;
    struct merge *merges;    /* by hash of the pair; owned */
    uint64_t secret, factor; /* of that hash; factor: odd */
    size_t slot_mask;
    bool fuse_unknown, ignore_merges; /* the latter: a word that is a token is not taken apart */
    int32_t unknown;                  /* -1: unknown characters are left out */
    int32_t byte_ids[256];            /* -1: no fallback */
    int32_t character_ids[BPE_TABLE_CHARACTERS];
};

/* Room for so many merges; the vocabulary must be indexed and outlive it. */
MUST_CHECK int bpe_init(struct bpe *bpe, const struct vocabulary *vocabulary, size_t merges,
                        struct error *err);
void bpe_close(struct bpe *bpe);

/* The next merge: its rank is how many there were before. */
void bpe_merge(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);

/* What encoding needs beside the result; kept from word to word. */
struct bpe_scratch {
    struct buffer symbols, heap;
};

/* Appends int32 ids for a word, in time n log n. */
void bpe_append(const struct bpe *bpe, const char *word, size_t length, struct bpe_scratch *scratch,
                struct buffer *ids);

#endif

/* A loaded tokenizer: what tokenizer_json.c fills in and tokenizer.c and detokenize.c use. */
#ifndef PROTO_TEXT_TOKENIZER_PRIVATE_H
#define PROTO_TEXT_TOKENIZER_PRIVATE_H

#include "proto/text/decoder.h"
#include "proto/text/model.h"
#include "proto/text/normalize.h"
#include "proto/text/split.h"

/* How an added token is found. */
struct added_token {
    int32_t id;
    bool single_word, left_strip, right_strip;
    bool normalized; /* found in the text behind the normalizer */
};

/* Added tokens of one kind. */
struct added_set {
    struct lexicon lexicon; /* word ids are places in `added` */
    struct buffer texts;    /* of the words */
};

/* Ids that a post-processor puts on one side. */
struct around {
    int32_t *ids; /* owned */
    size_t count;
};

struct tokenizer {
    struct vocabulary vocabulary;
    struct model model;
    struct normalizer normalizer;
    struct splitter splitter;
    struct decoder decoder;
    struct around before, after;
    struct added_token *added; /* owned */
    size_t added_count;
    struct added_set raw, normalized;
    size_t longest; /* bytes of text that one token stands for */
    size_t
        shrinks_by; /* how often as many bytes text that is not ASCII may have had; 0: no bound */
};

/* Fills in the last two, once all else is there. */
void tokenizer_find_bound(struct tokenizer *tokenizer);

#endif

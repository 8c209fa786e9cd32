/* What turns a word into ids: one of three models. */
#ifndef PROTO_TEXT_MODEL_H
#define PROTO_TEXT_MODEL_H

#include "proto/text/bpe.h"
#include "proto/text/unigram.h"
#include "proto/text/wordpiece.h"

enum model_kind { MODEL_NONE, MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE };

struct model {
    enum model_kind kind;
    union {
        struct bpe bpe;
        struct unigram unigram;
        struct wordpiece wordpiece;
    };
};

#endif

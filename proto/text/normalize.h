/* What is done to text before it is cut into words: the normalizers of tokenizer.json, in order. */
#ifndef PROTO_TEXT_NORMALIZE_H
#define PROTO_TEXT_NORMALIZE_H

#include <stdbool.h>

#include "proto/text/canonical.h"
#include "proto/text/charsmap.h"
#include "proto/text/pattern.h"

/* BertNormalizer is five of them. */
enum { NORMALIZER_MAX_STEPS = 32 };

enum normalizer_kind {
    NORMALIZE_FORM,
    NORMALIZE_LOWERCASE,
    NORMALIZE_STRIP_ACCENTS, /* all marks */
    NORMALIZE_STRIP_BERT,    /* non-spacing marks */
    NORMALIZE_STRIP,         /* white space at the ends */
    NORMALIZE_REPLACE,       /* `find` or `pattern` by `content` */
    NORMALIZE_PREPEND,       /* `content`, before text that is not empty */
    NORMALIZE_CLEAN,         /* controls away, white space to blanks */
    NORMALIZE_CHINESE,       /* blanks around ideographs */
    NORMALIZE_CHARSMAP,
    NORMALIZE_BYTE_LEVEL,
};

struct normalizer_step {
    enum normalizer_kind kind;
    enum canonical_form form;
    bool left, right;        /* of strip */
    char *find, *content;    /* owned */
    struct pattern *pattern; /* owned */
    struct charsmap charsmap;
};

struct normalizer {
    struct normalizer_step steps[NORMALIZER_MAX_STEPS];
    size_t count;
};

void normalizer_close(struct normalizer *normalizer);

/* Puts the normalized text into `to` in place of what was there; failures are the buffer's, also
 * that patterns take more than `steps_left` (pattern.h). */
void normalizer_run(const struct normalizer *normalizer, const char *text, size_t length,
                    uint64_t *steps_left, struct buffer *to);

/* Appends the text with `content` for every `find`, which is not empty. */
void replace_text(struct buffer *to, const char *text, size_t length, const char *find,
                  const char *content);

#endif

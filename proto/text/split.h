/* How text is cut into the words that the model encodes: the pre-tokenizers of tokenizer.json, as a
 * few kinds of stages. */
#ifndef PROTO_TEXT_SPLIT_H
#define PROTO_TEXT_SPLIT_H

#include <stdbool.h>

#include "proto/buffer.h"
#include "proto/text/pattern.h"

enum { SPLITTER_MAX_STAGES = 16 };

enum split_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
};

enum stage_kind {
    STAGE_SPLIT,     /* at matches of a pattern or a text */
    STAGE_SPACE,     /* a blank before each piece that begins with none */
    STAGE_METASPACE, /* blanks to `text`, and one in front */
    STAGE_BYTES,     /* bytes to printable characters */
};

enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct stage {
    enum stage_kind kind;
    struct pattern *pattern; /* owned; NULL: `text` */
    char *text;              /* owned */
    enum split_behavior behavior;
    bool invert; /* matches and what is between them change places */
    enum prepend_scheme prepend;
};

struct splitter {
    struct stage stages[SPLITTER_MAX_STAGES];
    size_t count;
};

struct piece {
    size_t start, length; /* in the text */
    bool first;           /* it begins the whole input */
};

/* Pieces of a text. */
struct pieces {
    struct buffer text;
    struct buffer list; /* of struct piece */
};

void splitter_close(struct splitter *splitter);

/* Bounds of both buffers, in bytes. */
void pieces_init(struct pieces *pieces, size_t text_limit, size_t list_limit);
void pieces_close(struct pieces *pieces);

static inline const struct piece *pieces_list(const struct pieces *pieces, size_t *count)
{
    *count = pieces->list.length / sizeof(struct piece);
    return (const struct piece *)(const void *)pieces->list.data;
}

/* Cuts the one text in `pieces->text` into pieces, none of them empty. `first`: it begins the
 * input. `steps_left` is what patterns may still take of it (pattern.h). */
MUST_CHECK int splitter_run(const struct splitter *splitter, struct pieces *pieces, bool first,
                            uint64_t *steps_left, struct error *err);

#endif

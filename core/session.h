/* The memory of a sequence: what its rows leave for later rows. Private to core/.
 *
 * A layer declares how many bytes it keeps for a sequence as a whole (a running state) and for each
 * position (keys and values). The former are the session's own; the latter are in pages, which
 * sequences with the same beginning share. Layers find theirs through the spans of struct run;
 * layers that treat rows independently never look. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "core/layers/layer.h"
#include "core/pages.h"

struct entry {
    uint32_t page;
    uint64_t serial; /* of the page, or of its like, that others find; of the first `shared` */
};

struct moed_session {
    struct moed_pages *pages; /* borrowed */
    size_t length; /* positions that all layers have seen; during a forward pass, those before it */
    char *state;   /* what is kept of the sequence as a whole */
    struct entry *table; /* [held of capacity] its pages, in order */
    int32_t *tokens;     /* [capacity * MOED_PAGE_POSITIONS] of the positions so far */
    size_t held, capacity;
    size_t first;    /* pages before this one are behind every window, and given back */
    size_t writable; /* positions that forward passes may reach */
    size_t shared;   /* the first pages that others find, or their like */
    bool intervened; /* what it has computed is not what its tokens alone give */
};

/* layer->memory.per_sequence bytes; zero before the first position. */
static inline void *session_sequence(const struct moed_session *session, const struct layer *layer)
{
    return session->state + layer->memory.sequence_at;
}

/* layer->memory.per_position bytes for each of the positions of page `page`, contiguous. Undefined
 * until a layer writes them. */
static inline void *session_page(const struct moed_session *session, const struct layer *layer,
                                 size_t page)
{
    const struct moed_pages *pages = session->pages;
    return pages->memory + session->table[page].page * pages->page_bytes +
           MOED_PAGE_POSITIONS * layer->memory.position_at;
}

/* Notes that a forward pass has seen the span, whose rows are rows of `input`, the first input,
 * from `row` on. */
void session_advance(struct moed_session *session, const struct moed_span *span, const void *input,
                     size_t row);

#endif

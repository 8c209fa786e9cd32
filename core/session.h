/* The memory of a sequence: what its rows leave for later rows. Private to core/.
 *
 * A layer declares how many bytes it keeps for each position (keys and values). They are in pages,
 * which sequences with the same beginning share. Layers find theirs through the spans of struct
 * run; layers that treat rows independently never look. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "core/layers/layer.h"
#include "core/pages.h"

/* A session's pages of one kind, in order. */
struct held {
    uint32_t *table; /* [held of capacity] */
    size_t first;    /* those before are behind the window, and given back */
};

struct moed_session {
    struct moed_pages *pages; /* borrowed */
    size_t length; /* positions that all layers have seen; during a forward pass, those before it */
    struct held kinds[MOED_MAX_KINDS]; /* as its model has them */
    /* [capacity] of the pages of the first kind, or of their likes, that others find; of the first
     * `shared` */
    uint64_t *serials;
    int32_t *tokens; /* [capacity * MOED_PAGE_POSITIONS] of the positions so far */
    size_t held, capacity;
    size_t promised; /* pages of each kind, with those it has; of a window, as many as it spans */
    size_t writable; /* positions that forward passes may reach */
    size_t shared;   /* the first pages that others find, or their like */
    bool intervened; /* what it has computed is not what its tokens alone give */
};

/* layer->memory.per_position bytes for each of the positions of page `page`, contiguous. Undefined
 * until a layer writes them. */
static inline void *session_page(const struct moed_session *session, const struct layer *layer,
                                 size_t page)
{
    size_t kind = layer->memory.kind;
    return page_memory(&session->pages->kinds[kind], session->kinds[kind].table[page]) +
           MOED_PAGE_POSITIONS * layer->memory.position_at;
}

/* Notes that a forward pass has seen the span, whose rows are rows of `input`, the first input,
 * from `row` on. */
void session_advance(struct moed_session *session, const struct moed_span *span, const void *input,
                     size_t row);

#endif

/* The memory of a sequence: what its rows leave for later rows. Private to core/.
 *
 * A layer declares how many bytes it keeps for a sequence as a whole (a running state) and for each
 * position (keys and values). The memory of all layers is one block. Layers find theirs through the
 * spans of struct run; layers that treat rows independently never look. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "core/layers/layer.h"

struct moed_session {
    const struct moed_model *model; /* borrowed */
    size_t max_positions;
    size_t length; /* positions that all layers have seen; during a forward pass, those before it */
    char *memory;  /* the per-sequence part, then pages */
    size_t sequence_bytes, position_bytes;
};

/* Positions of a page. */
enum { SESSION_PAGE = 32 };

/* layer->memory.per_sequence bytes; zero before the first position. */
static inline void *session_sequence(const struct moed_session *session, const struct layer *layer)
{
    return session->memory + layer->memory.sequence_at;
}

/* layer->memory.per_position bytes for each of the SESSION_PAGE positions of page `page`,
 * contiguous. Undefined until a layer writes them. */
static inline void *session_page(const struct moed_session *session, const struct layer *layer,
                                 size_t page)
{
    return session->memory + session->sequence_bytes +
           SESSION_PAGE * (page * session->position_bytes + layer->memory.position_at);
}

#endif

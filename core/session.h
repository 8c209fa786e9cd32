/* What a sequence's rows leave behind for those that come after them. Private to core/.
 *
 * A layer declares how many bytes it keeps of a sequence as a whole (a running state) and of every
 * position (keys and values); all layers' are one block. Layers find theirs through the spans of
 * struct run; who looks at rows alone never asks. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include "core/layers/layer.h"

struct moed_session {
    const struct moed_model *model; /* borrowed */
    size_t max_positions;
    size_t length; /* positions that all layers have seen; during a forward those before it */
    char *memory;
    size_t sequence_bytes,
        capacity; /* of memory: the part of whole sequences; positions behind it */
};

/* layer->memory.per_sequence bytes; zero before the first position. */
static inline void *session_sequence(const struct moed_session *session, const struct layer *layer)
{
    return session->memory + layer->memory.sequence_at;
}

/* layer->memory.per_position bytes for each of max_positions, side by side. Undefined until a layer
 * writes them. */
static inline void *session_positions(const struct moed_session *session, const struct layer *layer)
{
    return session->memory + session->sequence_bytes +
           session->capacity * layer->memory.position_at;
}

#endif

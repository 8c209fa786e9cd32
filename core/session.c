/* A session's memory is allocated whole, so that a forward cannot run out of it. */
#include "core/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/model.h"

/* Bounds one sequence: a config and a length that multiply to more are refused, not allocated. */
static const size_t MOED_SESSION_LIMIT = (size_t)16 << 30;

/* Suits cache lines and the widest vectors. Layers keep multiples of four bytes, so every layer's
 * part of a page is aligned. */
enum { ALIGNMENT = 64 };

struct moed_session *moed_session_new(const struct moed_model *model, size_t max_positions,
                                      struct error *err)
{
    const struct moed_model_info *info = moed_model_info(model);
    size_t capacity, bytes;
    if (__builtin_add_overflow(max_positions, SESSION_PAGE - 1, &capacity) ||
        __builtin_mul_overflow(capacity, info->position_bytes, &bytes) ||
        __builtin_add_overflow(bytes, info->session_bytes + ALIGNMENT, &bytes) ||
        bytes > MOED_SESSION_LIMIT) {
        error_set(err, ERROR_INVALID,
                  "a session of %zu positions of %llu bytes and %llu bytes exceeds %zu bytes; use "
                  "fewer positions",
                  max_positions, (unsigned long long)info->position_bytes,
                  (unsigned long long)info->session_bytes, MOED_SESSION_LIMIT);
        return NULL;
    }
    struct moed_session *session = xcalloc(1, sizeof *session);
    session->model = model;
    session->max_positions = max_positions;
    session->sequence_bytes = info->session_bytes;
    session->position_bytes = info->position_bytes;
    session->memory = aligned_alloc(ALIGNMENT, bytes / ALIGNMENT * ALIGNMENT);
    if (!session->memory) {
        error_set(err, ERROR_UNAVAILABLE, "no memory for a session of %zu bytes", bytes);
        moed_session_free(session);
        return NULL;
    }
    memset(session->memory, 0, session->sequence_bytes);
    return session;
}

void moed_session_free(struct moed_session *session)
{
    if (!session)
        return;
    free(session->memory);
    free(session);
}

size_t moed_session_length(const struct moed_session *session)
{
    return session->length;
}

void moed_session_truncate(struct moed_session *session, size_t length)
{
    assert(length <= session->length);
    assert(length == 0 || length == session->length || session->sequence_bytes == 0);
    if (length == 0)
        memset(session->memory, 0, session->sequence_bytes);
    session->length = length;
}

/* A session has all pages that it will need before a forward pass begins, which therefore cannot
 * run out of them, and touches nothing that another session uses. */
#include "core/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/model.h"

/* Suits cache lines and the widest vectors. */
enum { ALIGNMENT = 64 };

struct moed_session *moed_session_new(struct moed_pages *pages, struct error *err)
{
    size_t bytes = pages->model->session_bytes; /* of whole cache lines */
    struct moed_session *session = xcalloc(1, sizeof *session);
    session->pages = pages;
    session->state = aligned_alloc(ALIGNMENT, bytes + ALIGNMENT);
    if (!session->state) {
        error_set(err, ERROR_UNAVAILABLE, "no memory for a session of %zu bytes", bytes);
        free(session);
        return NULL;
    }
    memset(session->state, 0, bytes);
    return session;
}

/* Gives back the pages from `from` on: the last one first, so that of those that stay findable it
 * goes first. */
static void give_back(struct moed_session *session, size_t from)
{
    while (session->held > from)
        if (session->held-- > session->first)
            pages_release(session->pages, session->table[session->held].page);
}

void moed_session_free(struct moed_session *session)
{
    if (!session)
        return;
    moed_session_share(session);
    give_back(session, 0);
    free(session->table);
    free(session->tokens);
    free(session->state);
    free(session);
}

size_t moed_session_length(const struct moed_session *session)
{
    return session->length;
}

/* Room in the tables for so many pages. */
static int grow(struct moed_session *session, size_t pages)
{
    if (pages <= session->capacity)
        return 0;
    struct entry *table = realloc(session->table, pages * sizeof *table);
    session->table = table ? table : session->table;
    int32_t *tokens = realloc(session->tokens, pages * MOED_PAGE_POSITIONS * sizeof *tokens);
    session->tokens = tokens ? tokens : session->tokens;
    if (!table || !tokens)
        return -1;
    session->capacity = pages;
    return 0;
}

/* The page that the next position lies in, if the session has used part of it; NULL: none. */
static uint32_t *tail_of(const struct moed_session *session)
{
    size_t last = session->length / MOED_PAGE_POSITIONS;
    return session->length % MOED_PAGE_POSITIONS ? &session->table[last].page : NULL;
}

/* Makes the tail the session's own, which will write to it: after a truncation others may have it,
 * or find it. */
static void own_tail(struct moed_session *session, uint32_t *tail)
{
    struct moed_pages *pages = session->pages;
    if (pages->list[*tail].holders == 1) {
        pages_forget(pages, *tail);
        return;
    }
    uint32_t copy = pages_take(pages);
    memcpy(pages->memory + copy * pages->page_bytes, pages->memory + *tail * pages->page_bytes,
           pages->page_bytes);
    pages_release(pages, *tail);
    *tail = copy;
}

int moed_session_reserve(struct moed_session *session, size_t positions)
{
    struct moed_pages *pages = session->pages;
    size_t context = pages->model->context;
    if (positions <= session->writable)
        return 0;
    if (context > 0 && positions > context)
        return -1;
    size_t wanted = positions / MOED_PAGE_POSITIONS + (positions % MOED_PAGE_POSITIONS != 0);
    uint32_t *tail = tail_of(session);
    bool copies = tail && pages->list[*tail].holders > 1;
    size_t more = wanted > session->held ? wanted - session->held : 0;
    if (more + copies > pages_available(pages) || grow(session, wanted) != 0)
        return -1;
    if (tail)
        own_tail(session, tail_of(session));
    while (session->held < wanted)
        session->table[session->held++].page = pages_take(pages);
    session->writable = session->held * MOED_PAGE_POSITIONS;
    return 0;
}

/* Puts a page that is kept for these tokens in its place, where the session may have one of its
 * own. */
static int use_page(struct moed_session *session, size_t at, uint32_t page, const int32_t *tokens)
{
    if (at == session->held && grow(session, at + 1) != 0)
        return -1;
    pages_hold(session->pages, page);
    if (at < session->held)
        pages_release(session->pages, session->table[at].page);
    else
        session->held++;
    session->table[at].page = page;
    memcpy(session->tokens + at * MOED_PAGE_POSITIONS, tokens,
           MOED_PAGE_POSITIONS * sizeof *tokens);
    return 0;
}

size_t moed_session_find_prefix(struct moed_session *session, const int32_t *tokens, size_t count)
{
    struct moed_pages *pages = session->pages;
    size_t most = count > 0 ? (count - 1) / MOED_PAGE_POSITIONS : 0;
    uint64_t parent = 0;
    assert(session->length == 0);
    for (size_t i = 0; pages->by_tokens && i < most; i++, tokens += MOED_PAGE_POSITIONS) {
        uint32_t page = pages_find(pages, parent, tokens);
        if (page == NO_PAGE || use_page(session, i, page, tokens) != 0)
            break;
        parent = session->table[i].serial = pages->list[page].serial;
        session->shared++;
        session->length += MOED_PAGE_POSITIONS;
    }
    if (session->writable < session->length)
        session->writable = session->length;
    return session->length;
}

/* Gives back the pages that no position from the next one on will look at. */
static void leave_windows(struct moed_session *session)
{
    size_t window = session->pages->model->window;
    if (window == 0 || session->length < window)
        return;
    for (; (session->first + 1) * MOED_PAGE_POSITIONS <= session->length - window + 1;
         session->first++)
        pages_release(session->pages, session->table[session->first].page);
}

void moed_session_share(struct moed_session *session)
{
    struct moed_pages *pages = session->pages;
    size_t whole = session->length / MOED_PAGE_POSITIONS;
    bool shares = pages->by_tokens && !session->intervened;
    for (; shares && session->shared < whole; session->shared++) {
        struct entry *entry = &session->table[session->shared];
        uint64_t parent = session->shared ? entry[-1].serial : 0;
        entry->serial = pages_keep(pages, entry->page, parent,
                                   session->tokens + session->shared * MOED_PAGE_POSITIONS);
    }
    leave_windows(session);
}

void session_advance(struct moed_session *session, const struct moed_span *span, const void *input,
                     size_t row)
{
    if (session->pages->by_tokens)
        memcpy(session->tokens + session->length, (const int32_t *)input + row,
               span->rows * sizeof *session->tokens);
    session->intervened |= span->intervention != NULL;
    session->length += span->rows;
}

void moed_session_truncate(struct moed_session *session, size_t length)
{
    const struct moed_model *model = session->pages->model;
    size_t pages = length / MOED_PAGE_POSITIONS;
    assert(length <= session->length);
    assert(length == 0 || length == session->length ||
           (model->session_bytes == 0 && model->window == 0));
    give_back(session, pages + (length % MOED_PAGE_POSITIONS != 0));
    if (length == 0) {
        memset(session->state, 0, model->session_bytes);
        session->first = 0;
        session->intervened = false;
    }
    session->shared = session->shared < pages ? session->shared : pages;
    session->length = session->writable = length;
}

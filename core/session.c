/* A session has all pages that it will need before a forward pass begins, which therefore cannot
 * run out of them, and touches nothing that another session uses. */
#include "core/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/model.h"

struct moed_session *moed_session_new(struct moed_pages *pages)
{
    struct moed_session *session = xcalloc(1, sizeof *session);
    session->pages = pages;
    return session;
}

/* Gives back the pages from `from` on and what was promised beyond them: the last one first, so
 * that of those that stay findable it goes first. */
static void give_back(struct moed_session *session, size_t from)
{
    struct moed_pages *pages = session->pages;
    pages->kinds[0].promised -= session->promised - session->held;
    while (session->held > from) {
        session->held--;
        for (size_t i = 0; i < pages->kind_count; i++)
            if (session->held >= session->kinds[i].first)
                pages_release(pages, i, session->kinds[i].table[session->held]);
    }
    pages_promise(pages, session->promised, session->held);
    session->promised = session->held;
}

void moed_session_free(struct moed_session *session)
{
    if (!session)
        return;
    moed_session_share(session);
    give_back(session, 0);
    for (size_t i = 0; i < MOED_MAX_KINDS; i++)
        free(session->kinds[i].table);
    free(session->serials);
    free(session->tokens);
    free(session);
}

size_t moed_session_length(const struct moed_session *session)
{
    return session->length;
}

/* `memory` with room for so many entries, or as it is: then *failed. */
static void *grown(void *memory, size_t count, size_t bytes, bool *failed)
{
    void *larger = realloc(memory, count * bytes);
    *failed |= !larger;
    return larger ? larger : memory;
}

/* Room in the tables for so many pages. */
static int grow(struct moed_session *session, size_t pages)
{
    bool failed = false;
    if (pages <= session->capacity)
        return 0;
    for (size_t i = 0; i < session->pages->kind_count; i++) {
        struct held *held = &session->kinds[i];
        held->table = grown(held->table, pages, sizeof *held->table, &failed);
    }
    session->serials = grown(session->serials, pages, sizeof *session->serials, &failed);
    session->tokens =
        grown(session->tokens, pages * MOED_PAGE_POSITIONS, sizeof *session->tokens, &failed);
    session->capacity = failed ? session->capacity : pages;
    return failed ? -1 : 0;
}

/* The page that the next position lies in, if the session has used part of it; NULL: none. With
 * layers that have a window nobody else ever has it, for a session cannot go back into a page. */
static uint32_t *tail_of(const struct moed_session *session)
{
    size_t last = session->length / MOED_PAGE_POSITIONS;
    return session->length % MOED_PAGE_POSITIONS ? &session->kinds[0].table[last] : NULL;
}

/* Makes the tail the session's own, which will write to it: after a truncation others may have it,
 * or find it. */
static void own_tail(struct moed_session *session, uint32_t *tail)
{
    struct moed_pages *pages = session->pages;
    struct page_kind *kind = &pages->kinds[0];
    if (kind->list[*tail].holders == 1) {
        pages_forget(pages, *tail);
        return;
    }
    uint32_t copy = pages_take(pages, 0);
    memcpy(page_memory(kind, copy), page_memory(kind, *tail), kind->page_bytes);
    pages_release(pages, 0, *tail);
    *tail = copy;
}

int moed_session_promise(struct moed_session *session, size_t positions)
{
    struct moed_pages *pages = session->pages;
    size_t context = pages->model->context;
    if (positions <= session->writable)
        return 0;
    if (context > 0 && positions > context)
        return -1;
    size_t wanted = max_size(pages_of(positions), session->promised);
    size_t more = wanted - session->promised;
    uint32_t *tail = tail_of(session);
    bool copies = tail && pages->kinds[0].list[*tail].holders > 1;
    if (more + copies > pages_to_promise(pages) || grow(session, wanted) != 0 ||
        !pages_promise(pages, session->promised, wanted))
        return -1;
    pages->kinds[0].promised += more;
    session->promised = wanted;
    if (tail)
        own_tail(session, tail_of(session));
    return 0;
}

int moed_session_reserve(struct moed_session *session, size_t positions)
{
    struct moed_pages *pages = session->pages;
    if (positions <= session->writable)
        return 0;
    if (moed_session_promise(session, positions) != 0)
        return -1;
    for (; session->held < pages_of(positions); session->held++) {
        for (size_t i = 0; i < pages->kind_count; i++)
            session->kinds[i].table[session->held] = pages_take(pages, i);
        pages->kinds[0].promised--;
    }
    session->writable = session->held * MOED_PAGE_POSITIONS;
    return 0;
}

/* Notes the pages that are kept for these tokens, as many as could be held. Returns how many of
 * them a session can begin with: every window must have its own. */
static size_t look_up(struct moed_session *session, const int32_t *tokens, size_t most)
{
    struct moed_pages *pages = session->pages;
    size_t unbroken[MOED_MAX_KINDS] = {0}; /* from here on all pages of the kind are there */
    size_t usable = 0, idle = 0;
    uint64_t parent = 0;
    for (size_t i = 0; i < most; i++, tokens += MOED_PAGE_POSITIONS) {
        uint32_t page = pages_find(pages, parent, tokens);
        if (page == NO_PAGE)
            break;
        idle += pages->kinds[0].list[page].holders == 0;
        if (idle > pages_to_promise(pages))
            break;
        session->kinds[0].table[i] = page;
        session->serials[i] = parent = pages->kinds[0].list[page].serial;
        bool has_windows = true;
        for (size_t k = 1; k < pages->kind_count; k++) {
            const struct page_kind *kind = &pages->kinds[k];
            if (kind->found[page] == NO_PAGE)
                unbroken[k] = i + 1;
            has_windows &=
                unbroken[k] <= pages_first_seen(kind->window, (i + 1) * MOED_PAGE_POSITIONS);
        }
        if (has_windows)
            usable = i + 1;
    }
    return usable;
}

/* Holds the first pages that were looked up, and of kinds with a window what it sees. */
static void hold(struct moed_session *session, size_t count)
{
    struct moed_pages *pages = session->pages;
    for (size_t k = 0; k < pages->kind_count; k++) {
        const struct page_kind *kind = &pages->kinds[k];
        struct held *held = &session->kinds[k];
        held->first = pages_first_seen(kind->window, count * MOED_PAGE_POSITIONS);
        for (size_t i = held->first; i < count; i++) {
            held->table[i] = k ? kind->found[session->kinds[0].table[i]] : held->table[i];
            pages_hold(pages, k, held->table[i]);
        }
    }
    session->held = session->promised = session->shared = count;
}

size_t moed_session_find_prefix(struct moed_session *session, const int32_t *tokens, size_t count)
{
    struct moed_pages *pages = session->pages;
    size_t most = count > 0 ? (count - 1) / MOED_PAGE_POSITIONS : 0;
    assert(session->length == 0 && session->promised == 0);
    if (!pages->by_tokens || grow(session, most) != 0)
        return 0;
    size_t found = look_up(session, tokens, most);
    if (found == 0 || !pages_promise(pages, 0, found))
        return 0;
    hold(session, found);
    session->length = session->writable = found * MOED_PAGE_POSITIONS;
    memcpy(session->tokens, tokens, session->length * sizeof *tokens);
    return session->length;
}

/* Gives back the pages that no position from the next one on will look at. */
static void leave_windows(struct moed_session *session)
{
    struct moed_pages *pages = session->pages;
    for (size_t i = 1; i < pages->kind_count; i++) {
        struct held *held = &session->kinds[i];
        size_t first = pages_first_seen(pages->kinds[i].window, session->length);
        for (; held->first < first; held->first++)
            pages_release(pages, i, held->table[held->first]);
    }
}

/* Lets others find the page that follows those that they find. */
static void share_page(struct moed_session *session)
{
    struct moed_pages *pages = session->pages;
    size_t at = session->shared++;
    uint64_t parent = at ? session->serials[at - 1] : 0;
    uint32_t page = pages_keep(pages, session->kinds[0].table[at], parent,
                               session->tokens + at * MOED_PAGE_POSITIONS);
    session->serials[at] = pages->kinds[0].list[page].serial;
    for (size_t i = 1; i < pages->kind_count; i++)
        pages_keep_with(pages, i, session->kinds[i].table[at], page);
}

void moed_session_share(struct moed_session *session)
{
    bool shares = session->pages->by_tokens && !session->intervened;
    while (shares && session->shared < session->length / MOED_PAGE_POSITIONS)
        share_page(session);
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
    size_t whole = length / MOED_PAGE_POSITIONS;
    assert(length <= session->length);
    assert(length == 0 || length == session->length || session->pages->kind_count == 1);
    give_back(session, pages_of(length));
    if (length == 0) {
        for (size_t i = 0; i < MOED_MAX_KINDS; i++)
            session->kinds[i].first = 0;
        session->intervened = false;
    }
    session->shared = session->shared < whole ? session->shared : whole;
    session->length = session->writable = length;
}

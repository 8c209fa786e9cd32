/* The arenas from which sessions take memory for positions, a page at a time, and the pages of
 * sequences that have ended, which later sequences with the same beginning use again.
 *
 * Layers that look back equally far are a kind, and share an arena: a page holds what all of them
 * keep of MOED_PAGE_POSITIONS positions. The first kind looks back to the beginning. Of the others,
 * a session gives back the pages that are behind the window.
 *
 * A page is free, or held by one or more sessions, or idle: it is kept for its tokens until its
 * memory is wanted, the one that nobody has used for longest first. Pages of the first kind that
 * are kept are found by their tokens and the page before them; those of the other kinds by the page
 * of the first kind for the same positions, and not without it.
 *
 * Nobody who was promised pages lacks them. Of the first kind a promise is a number of available
 * pages that others leave alone. Of a kind with a window it is a share of all pages, since what a
 * session holds changes all the time, and whoever gives back a page that another holds has one to
 * take and has made none available. A session holds no more than its window spans, and beside that
 * what the spans of the next forward pass need. Private to core/. */
#ifndef CORE_PAGES_H
#define CORE_PAGES_H

#include "core/moed.h"

struct page {
    uint32_t holders;       /* sessions */
    uint32_t before, after; /* in the list of free or of idle pages */
    uint32_t next;          /* first kind: in its bucket; others: the page that it is found by */
    uint64_t hash, parent;  /* parent: the serial of the page before it; 0: it is the first */
    uint64_t serial;        /* never given twice; 0: it is not kept for others */
};

struct page_kind {
    char *memory; /* [total, page_bytes] */
    size_t page_bytes;
    struct page *list; /* [total], and one more: the ends of the idle list */
    size_t total, free_count, idle_count;
    uint32_t first_free;
    size_t promised; /* first kind: not yet taken; others: of `spanned` in all */
    /* Of a kind with a window: */
    size_t window;
    size_t spanned;  /* pages that a session holds between forward passes, at most */
    size_t beyond;   /* what was promised beyond that, */
    size_t step;     /* of which so many are taken at a time, at most */
    uint32_t *found; /* [total of the first kind] those that are found by its pages; NO_PAGE */
};

struct moed_pages {
    const struct moed_model *model; /* borrowed */
    size_t kind_count;
    struct page_kind kinds[MOED_MAX_KINDS]; /* as the model has them */
    uint32_t *buckets;                      /* [bucket_mask + 1] of the first kind */
    size_t bucket_mask;
    int32_t *tokens;  /* [total, MOED_PAGE_POSITIONS] of its pages that are kept */
    uint64_t serials; /* given so far */
    bool by_tokens;   /* the model's rows are single tokens, and sequences keep nothing else */
};

static const uint32_t NO_PAGE = UINT32_MAX;

static inline char *page_memory(const struct page_kind *kind, uint32_t page)
{
    return kind->memory + page * kind->page_bytes;
}

static inline size_t pages_of(size_t positions)
{
    return positions / MOED_PAGE_POSITIONS + (positions % MOED_PAGE_POSITIONS != 0);
}

/* Those before it are behind the window from position `length` on. */
static inline size_t pages_first_seen(size_t window, size_t length)
{
    return window && length >= window ? (length - window + 1) / MOED_PAGE_POSITIONS : 0;
}

/* Those that pages_take() can still give. */
static inline size_t pages_available(const struct page_kind *kind)
{
    return kind->free_count + kind->idle_count;
}

/* Those of the first kind that nobody was promised. */
static inline size_t pages_to_promise(const struct moed_pages *pages)
{
    return pages_available(&pages->kinds[0]) - pages->kinds[0].promised;
}

/* Changes what a session was promised of kinds with a window. False if there are not so many, which
 * cannot be when it gets fewer. */
bool pages_promise(struct moed_pages *pages, size_t from, size_t to);

/* A page of the caller's own, which is available. */
uint32_t pages_take(struct moed_pages *pages, size_t kind);

/* One more holder, and one less. */
void pages_hold(struct moed_pages *pages, size_t kind, uint32_t page);
void pages_release(struct moed_pages *pages, size_t kind, uint32_t page);

/* The page of the first kind that is kept for these tokens after the page `parent`; NO_PAGE: there
 * is none. */
uint32_t pages_find(const struct moed_pages *pages, uint64_t parent, const int32_t *tokens);

/* Keeps a held page of the first kind for others to find. Returns it, or the page that is kept for
 * the same already. */
uint32_t pages_keep(struct moed_pages *pages, uint32_t page, uint64_t parent,
                    const int32_t *tokens);

/* Keeps a held page of another kind with one of the first kind that is kept, which may have its
 * like. */
void pages_keep_with(struct moed_pages *pages, size_t kind, uint32_t page, uint32_t first);

/* From now on nobody else finds it, which is of the first kind, or what was kept with it. */
void pages_forget(struct moed_pages *pages, uint32_t page);

#endif

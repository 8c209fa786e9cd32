/* The arena from which sessions take memory for positions, a page at a time, and the pages of
 * sequences that have ended, which later sequences with the same beginning use again.
 *
 * A page is free, or held by one or more sessions, or idle: it is kept for its tokens until its
 * memory is wanted, the one that nobody has used for longest first. Pages that are kept are found
 * by their tokens and the page before them. Private to core/. */
#ifndef CORE_PAGES_H
#define CORE_PAGES_H

#include "core/moed.h"

struct page {
    uint32_t holders;       /* sessions */
    uint32_t before, after; /* in the list of free or of idle pages */
    uint32_t next;          /* in its bucket */
    uint64_t hash, parent;  /* parent: the serial of the page before it; 0: it is the first */
    uint64_t serial;        /* never given twice; 0: it is not kept for others */
};

struct moed_pages {
    const struct moed_model *model; /* borrowed */
    char *memory;                   /* [total, page_bytes] */
    size_t page_bytes;
    struct page *list; /* [total], and one more: the ends of the idle list */
    size_t total, free_count, idle_count;
    uint32_t first_free;
    uint32_t *buckets; /* [bucket_mask + 1] */
    size_t bucket_mask;
    int32_t *tokens;  /* [total, MOED_PAGE_POSITIONS] of pages that are kept */
    uint64_t serials; /* given so far */
    bool by_tokens;   /* the model's rows are single tokens, and sequences keep nothing else */
};

static const uint32_t NO_PAGE = UINT32_MAX;

/* Those that pages_take() can still give. */
static inline size_t pages_available(const struct moed_pages *pages)
{
    return pages->free_count + pages->idle_count;
}

/* A page of the caller's own, which is available. */
uint32_t pages_take(struct moed_pages *pages);

/* One more holder, and one less. */
void pages_hold(struct moed_pages *pages, uint32_t page);
void pages_release(struct moed_pages *pages, uint32_t page);

/* The page that is kept for these tokens after the page `parent`; NO_PAGE: there is none. */
uint32_t pages_find(const struct moed_pages *pages, uint64_t parent, const int32_t *tokens);

/* Keeps a held page for others to find. Returns its serial, or that of the page that is kept for
 * the same already. */
uint64_t pages_keep(struct moed_pages *pages, uint32_t page, uint64_t parent,
                    const int32_t *tokens);

/* From now on nobody else finds it. */
void pages_forget(struct moed_pages *pages, uint32_t page);

#endif

/* Free pages are a stack; idle ones a ring in the order in which they were left; those that are
 * kept for their tokens are in buckets of a hash table, by number. Nothing is allocated after
 * moed_pages_new(). */
#include "core/pages.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/hash.h"
#include "core/memory.h"
#include "core/model.h"

/* The machine's huge pages, with which fewer addresses have to be translated. Layers' parts of a
 * page are aligned to cache lines and the widest vectors too: they keep multiples of four bytes of
 * a position. */
enum { ALIGNMENT = 2 << 20 };

/* So many pages have numbers; no machine has the memory. */
static const size_t MOST_PAGES = (size_t)1 << 31;

static void init_lists(struct moed_pages *pages)
{
    uint32_t ring = (uint32_t)pages->total;
    pages->list[ring].before = pages->list[ring].after = ring;
    pages->first_free = NO_PAGE;
    for (size_t i = pages->total; i-- > 0;) {
        pages->list[i].after = pages->first_free;
        pages->first_free = (uint32_t)i;
    }
    pages->free_count = pages->total;
    for (size_t i = 0; i <= pages->bucket_mask; i++)
        pages->buckets[i] = NO_PAGE;
}

/* Memory is touched when a page is used, not before. */
static int allocate(struct moed_pages *pages, size_t bytes, struct error *err)
{
    for (pages->bucket_mask = 1; pages->bucket_mask < pages->total;)
        pages->bucket_mask = pages->bucket_mask * 2 + 1;
    if (!(pages->list = calloc_checked(pages->total + 1, sizeof *pages->list, err)) ||
        !(pages->buckets = calloc_checked(pages->bucket_mask + 1, sizeof *pages->buckets, err)) ||
        !(pages->tokens =
              calloc_checked(pages->total * MOED_PAGE_POSITIONS, sizeof *pages->tokens, err)))
        return -1;
    pages->memory = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
    if (!pages->memory)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu pages of %zu bytes",
                         pages->total, pages->page_bytes);
    madvise(pages->memory, bytes, MADV_HUGEPAGE); /* advice: without it attention is slower */
    init_lists(pages);
    return 0;
}

/* Whether its rows are tokens, and all that a sequence keeps is in its pages. */
static bool has_tokens(const struct moed_model *model)
{
    return model->session_bytes == 0 && model->input_count == 1 &&
           model->input_info[0].categories > 0 && model->input_info[0].elements == 1;
}

struct moed_pages *moed_pages_new(const struct moed_model *model, size_t positions,
                                  struct error *err)
{
    size_t page_bytes = model->position_bytes * MOED_PAGE_POSITIONS, bytes;
    size_t total = positions / MOED_PAGE_POSITIONS + (positions % MOED_PAGE_POSITIONS != 0);
    if (total > MOST_PAGES || __builtin_mul_overflow(total, page_bytes, &bytes) ||
        bytes > PTRDIFF_MAX - ALIGNMENT) {
        error_set(err, ERROR_INVALID, "%zu positions of %zu bytes are more than any memory",
                  positions, model->position_bytes);
        return NULL;
    }
    struct moed_pages *pages = xcalloc(1, sizeof *pages);
    pages->model = model;
    pages->page_bytes = page_bytes;
    pages->total = total;
    pages->by_tokens = has_tokens(model);
    if (allocate(pages, bytes, err) != 0) {
        moed_pages_free(pages);
        return NULL;
    }
    return pages;
}

void moed_pages_free(struct moed_pages *pages)
{
    if (!pages)
        return;
    assert(!pages->memory || pages_available(pages) == pages->total);
    free(pages->memory);
    free(pages->tokens);
    free(pages->buckets);
    free(pages->list);
    free(pages);
}

size_t moed_pages_total(const struct moed_pages *pages)
{
    return pages->total;
}

size_t moed_pages_used(const struct moed_pages *pages)
{
    return pages->total - pages_available(pages);
}

size_t moed_pages_idle(const struct moed_pages *pages)
{
    return pages->idle_count;
}

/* ---- the idle ring ---- */

static void leave_ring(struct moed_pages *pages, uint32_t index)
{
    struct page *page = &pages->list[index];
    pages->list[page->before].after = page->after;
    pages->list[page->after].before = page->before;
    pages->idle_count--;
}

/* As the one that was used last. */
static void join_ring(struct moed_pages *pages, uint32_t index)
{
    uint32_t ring = (uint32_t)pages->total;
    struct page *page = &pages->list[index];
    page->after = ring;
    page->before = pages->list[ring].before;
    pages->list[page->before].after = index;
    pages->list[ring].before = index;
    pages->idle_count++;
}

/* ---- holders ---- */

static void free_page(struct moed_pages *pages, uint32_t index)
{
    pages->list[index].after = pages->first_free;
    pages->first_free = index;
    pages->free_count++;
}

uint32_t pages_take(struct moed_pages *pages)
{
    assert(pages_available(pages) > 0);
    if (pages->free_count == 0) {
        uint32_t oldest = pages->list[pages->total].after;
        leave_ring(pages, oldest);
        pages_forget(pages, oldest);
        free_page(pages, oldest);
    }
    uint32_t index = pages->first_free;
    pages->first_free = pages->list[index].after;
    pages->free_count--;
    pages->list[index] = (struct page){.holders = 1, .next = NO_PAGE};
    return index;
}

void pages_hold(struct moed_pages *pages, uint32_t page)
{
    if (pages->list[page].holders++ == 0)
        leave_ring(pages, page);
}

void pages_release(struct moed_pages *pages, uint32_t page)
{
    assert(pages->list[page].holders > 0);
    if (--pages->list[page].holders > 0)
        return;
    if (pages->list[page].serial)
        join_ring(pages, page);
    else
        free_page(pages, page);
}

/* ---- tokens ---- */

/* Of a bucket only: pages are told apart by what was hashed. */
static uint64_t hash_of(uint64_t parent, const int32_t *tokens)
{
    int32_t all[MOED_PAGE_POSITIONS + 2];
    memcpy(all, &parent, sizeof parent);
    memcpy(all + 2, tokens, MOED_PAGE_POSITIONS * sizeof *tokens);
    return hash_key(all, sizeof all);
}

static uint32_t *bucket_of(const struct moed_pages *pages, uint64_t hash)
{
    return &pages->buckets[hash & pages->bucket_mask];
}

static int32_t *tokens_of(const struct moed_pages *pages, uint32_t index)
{
    return pages->tokens + (size_t)index * MOED_PAGE_POSITIONS;
}

uint32_t pages_find(const struct moed_pages *pages, uint64_t parent, const int32_t *tokens)
{
    size_t bytes = MOED_PAGE_POSITIONS * sizeof *tokens;
    uint64_t hash = hash_of(parent, tokens);
    uint32_t index = *bucket_of(pages, hash);
    for (; index != NO_PAGE; index = pages->list[index].next) {
        const struct page *page = &pages->list[index];
        if (page->hash == hash && page->parent == parent &&
            memcmp(tokens_of(pages, index), tokens, bytes) == 0)
            break;
    }
    return index;
}

uint64_t pages_keep(struct moed_pages *pages, uint32_t page, uint64_t parent, const int32_t *tokens)
{
    uint32_t other = pages_find(pages, parent, tokens);
    struct page *own = &pages->list[page];
    if (other != NO_PAGE)
        return pages->list[other].serial;
    own->hash = hash_of(parent, tokens);
    own->parent = parent;
    own->serial = ++pages->serials;
    own->next = *bucket_of(pages, own->hash);
    *bucket_of(pages, own->hash) = page;
    memcpy(tokens_of(pages, page), tokens, MOED_PAGE_POSITIONS * sizeof *tokens);
    return own->serial;
}

void pages_forget(struct moed_pages *pages, uint32_t page)
{
    struct page *own = &pages->list[page];
    uint32_t *link = bucket_of(pages, own->hash);
    if (!own->serial)
        return;
    while (*link != page)
        link = &pages->list[*link].next;
    *link = own->next;
    own->serial = 0;
}

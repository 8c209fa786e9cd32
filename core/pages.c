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

static void init_lists(struct page_kind *kind)
{
    uint32_t ring = (uint32_t)kind->total;
    kind->list[ring].before = kind->list[ring].after = ring;
    kind->first_free = NO_PAGE;
    for (size_t i = kind->total; i-- > 0;) {
        kind->list[i].after = kind->first_free;
        kind->first_free = (uint32_t)i;
    }
    kind->free_count = kind->total;
}

static void fill(uint32_t *pages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        pages[i] = NO_PAGE;
}

/* Memory is touched when a page is used, not before. */
static int allocate_kind(struct moed_pages *pages, size_t index, struct error *err)
{
    struct page_kind *kind = &pages->kinds[index];
    size_t bytes = kind->total * kind->page_bytes, first = pages->kinds[0].total;
    if (!(kind->list = calloc_checked(kind->total + 1, sizeof *kind->list, err)) ||
        (index > 0 && !(kind->found = calloc_checked(first, sizeof *kind->found, err))))
        return -1;
    kind->memory = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
    if (!kind->memory)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu pages of %zu bytes",
                         kind->total, kind->page_bytes);
    madvise(kind->memory, bytes, MADV_HUGEPAGE); /* advice: without it attention is slower */
    init_lists(kind);
    if (index > 0)
        fill(kind->found, first);
    return 0;
}

static int allocate(struct moed_pages *pages, struct error *err)
{
    size_t total = pages->kinds[0].total;
    for (pages->bucket_mask = 1; pages->bucket_mask < total;)
        pages->bucket_mask = pages->bucket_mask * 2 + 1;
    if (!(pages->buckets = calloc_checked(pages->bucket_mask + 1, sizeof *pages->buckets, err)) ||
        !(pages->tokens = calloc_checked(total * MOED_PAGE_POSITIONS, sizeof *pages->tokens, err)))
        return -1;
    fill(pages->buckets, pages->bucket_mask + 1);
    for (size_t i = 0; i < pages->kind_count; i++)
        if (allocate_kind(pages, i, err) != 0)
            return -1;
    return 0;
}

/* Whether its rows are tokens. */
static bool has_tokens(const struct moed_model *model)
{
    return model->input_count == 1 && model->input_info[0].categories > 0 &&
           model->input_info[0].elements == 1;
}

/* ---- how many there are ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Whatever its length is, and with part of the page that it goes on with. */
static size_t spanned(size_t window)
{
    return (window + MOED_PAGE_POSITIONS - 2) / MOED_PAGE_POSITIONS + 2;
}

/* The last page of every span apart, which is part of what is spanned. */
static size_t step_pages(const struct moed_room *room)
{
    return room->sequences ? room->step_rows / MOED_PAGE_POSITIONS : SIZE_MAX;
}

size_t moed_room_pages(const struct moed_kind *kind, const struct moed_room *room)
{
    size_t all = pages_of(room->positions), some = all;
    if (kind->window && room->sequences)
        some = room->sequences * spanned(kind->window) + step_pages(room);
    return least(some, all);
}

uint64_t moed_room_bytes(const struct moed_model_info *info, const struct moed_room *room)
{
    uint64_t sum = 0, bytes;
    for (size_t i = 0; i < info->kind_count; i++)
        if (__builtin_mul_overflow(moed_room_pages(&info->kinds[i], room),
                                   info->kinds[i].position_bytes, &bytes) ||
            __builtin_mul_overflow(bytes, MOED_PAGE_POSITIONS, &bytes) ||
            __builtin_add_overflow(sum, bytes, &sum))
            return UINT64_MAX;
    return sum;
}

static void init_kind(struct page_kind *kind, const struct moed_kind *of,
                      const struct moed_room *room)
{
    kind->total = moed_room_pages(of, room);
    kind->page_bytes = of->position_bytes * MOED_PAGE_POSITIONS;
    kind->window = of->window;
    kind->spanned = spanned(of->window);
    kind->step = step_pages(room);
}

struct moed_pages *moed_pages_new(const struct moed_model *model, const struct moed_room *room,
                                  struct error *err)
{
    if (pages_of(room->positions) > MOST_PAGES ||
        moed_room_bytes(&model->info, room) > PTRDIFF_MAX - ALIGNMENT) {
        error_set(err, ERROR_INVALID, "%zu positions of %zu bytes are more than any memory",
                  room->positions, model->position_bytes);
        return NULL;
    }
    struct moed_pages *pages = xcalloc(1, sizeof *pages);
    pages->model = model;
    pages->kind_count = model->kind_count;
    pages->by_tokens = has_tokens(model);
    for (size_t i = 0; i < pages->kind_count; i++)
        init_kind(&pages->kinds[i], &model->kinds[i], room);
    if (allocate(pages, err) != 0) {
        moed_pages_free(pages);
        return NULL;
    }
    return pages;
}

void moed_pages_free(struct moed_pages *pages)
{
    if (!pages)
        return;
    for (size_t i = 0; i < pages->kind_count; i++) {
        struct page_kind *kind = &pages->kinds[i];
        assert(!kind->memory || pages_available(kind) == kind->total);
        assert(kind->promised == 0 && kind->beyond == 0);
        free(kind->memory);
        free(kind->list);
        free(kind->found);
    }
    free(pages->tokens);
    free(pages->buckets);
    free(pages);
}

/* The first kind has pages, if only to find others by, where no layer is of it. */
static size_t counted_from(const struct moed_pages *pages)
{
    return pages->kinds[0].page_bytes == 0 && pages->kind_count > 1;
}

size_t moed_pages_total(const struct moed_pages *pages)
{
    size_t sum = 0;
    for (size_t i = counted_from(pages); i < pages->kind_count; i++)
        sum += pages->kinds[i].total;
    return sum;
}

size_t moed_pages_used(const struct moed_pages *pages)
{
    size_t first = counted_from(pages), sum = first == 0 ? pages->kinds[0].promised : 0;
    for (size_t i = first; i < pages->kind_count; i++)
        sum += pages->kinds[i].total - pages_available(&pages->kinds[i]);
    return sum;
}

size_t moed_pages_idle(const struct moed_pages *pages)
{
    size_t sum = 0;
    for (size_t i = counted_from(pages); i < pages->kind_count; i++)
        sum += pages->kinds[i].idle_count;
    return sum;
}

bool pages_promise(struct moed_pages *pages, size_t from, size_t to)
{
    struct page_kind kinds[MOED_MAX_KINDS];
    memcpy(kinds, pages->kinds, sizeof kinds);
    for (size_t i = 1; i < pages->kind_count; i++) {
        struct page_kind *kind = &kinds[i];
        kind->promised += least(to, kind->spanned);
        kind->promised -= least(from, kind->spanned);
        kind->beyond += to - least(to, kind->spanned);
        kind->beyond -= from - least(from, kind->spanned);
        if (to > from && kind->promised + least(kind->beyond, kind->step) > kind->total)
            return false;
    }
    memcpy(pages->kinds, kinds, sizeof kinds);
    return true;
}

/* ---- the idle ring ---- */

static void leave_ring(struct page_kind *kind, uint32_t index)
{
    struct page *page = &kind->list[index];
    kind->list[page->before].after = page->after;
    kind->list[page->after].before = page->before;
    kind->idle_count--;
}

/* As the one that was used last. */
static void join_ring(struct page_kind *kind, uint32_t index)
{
    uint32_t ring = (uint32_t)kind->total;
    struct page *page = &kind->list[index];
    page->after = ring;
    page->before = kind->list[ring].before;
    kind->list[page->before].after = index;
    kind->list[ring].before = index;
    kind->idle_count++;
}

/* ---- holders ---- */

static void free_page(struct page_kind *kind, uint32_t index)
{
    kind->list[index].after = kind->first_free;
    kind->first_free = index;
    kind->free_count++;
}

/* Of a kind with a window. */
static void part(struct page_kind *kind, uint32_t index)
{
    kind->found[kind->list[index].next] = NO_PAGE;
    kind->list[index].serial = 0;
}

static void free_oldest(struct moed_pages *pages, size_t index)
{
    struct page_kind *kind = &pages->kinds[index];
    uint32_t oldest = kind->list[kind->total].after;
    leave_ring(kind, oldest);
    if (index == 0)
        pages_forget(pages, oldest);
    else
        part(kind, oldest);
    free_page(kind, oldest);
}

uint32_t pages_take(struct moed_pages *pages, size_t index)
{
    struct page_kind *kind = &pages->kinds[index];
    assert(pages_available(kind) > 0);
    if (kind->free_count == 0)
        free_oldest(pages, index);
    uint32_t page = kind->first_free;
    kind->first_free = kind->list[page].after;
    kind->free_count--;
    kind->list[page] = (struct page){.holders = 1, .next = NO_PAGE};
    return page;
}

void pages_hold(struct moed_pages *pages, size_t index, uint32_t page)
{
    struct page_kind *kind = &pages->kinds[index];
    if (kind->list[page].holders++ == 0)
        leave_ring(kind, page);
}

void pages_release(struct moed_pages *pages, size_t index, uint32_t page)
{
    struct page_kind *kind = &pages->kinds[index];
    assert(kind->list[page].holders > 0);
    if (--kind->list[page].holders > 0)
        return;
    if (kind->list[page].serial)
        join_ring(kind, page);
    else
        free_page(kind, page);
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
    const struct page *list = pages->kinds[0].list;
    size_t bytes = MOED_PAGE_POSITIONS * sizeof *tokens;
    uint64_t hash = hash_of(parent, tokens);
    uint32_t index = *bucket_of(pages, hash);
    for (; index != NO_PAGE; index = list[index].next)
        if (list[index].hash == hash && list[index].parent == parent &&
            memcmp(tokens_of(pages, index), tokens, bytes) == 0)
            break;
    return index;
}

uint32_t pages_keep(struct moed_pages *pages, uint32_t page, uint64_t parent, const int32_t *tokens)
{
    uint32_t other = pages_find(pages, parent, tokens);
    struct page *own = &pages->kinds[0].list[page];
    if (other != NO_PAGE)
        return other;
    own->hash = hash_of(parent, tokens);
    own->parent = parent;
    own->serial = ++pages->serials;
    own->next = *bucket_of(pages, own->hash);
    *bucket_of(pages, own->hash) = page;
    memcpy(tokens_of(pages, page), tokens, MOED_PAGE_POSITIONS * sizeof *tokens);
    return page;
}

void pages_keep_with(struct moed_pages *pages, size_t index, uint32_t page, uint32_t first)
{
    struct page_kind *kind = &pages->kinds[index];
    if (kind->found[first] != NO_PAGE)
        return;
    kind->found[first] = page;
    kind->list[page].next = first;
    kind->list[page].serial = pages->kinds[0].list[first].serial;
}

/* What was kept with a page that is found no more. */
static void forget_with(struct page_kind *kind, uint32_t first)
{
    uint32_t page = kind->found[first];
    if (page == NO_PAGE)
        return;
    part(kind, page);
    if (kind->list[page].holders > 0)
        return;
    leave_ring(kind, page);
    free_page(kind, page);
}

void pages_forget(struct moed_pages *pages, uint32_t page)
{
    struct page *list = pages->kinds[0].list;
    uint32_t *link = bucket_of(pages, list[page].hash);
    if (!list[page].serial)
        return;
    while (*link != page)
        link = &list[*link].next;
    *link = list[page].next;
    list[page].serial = 0;
    for (size_t i = 1; i < pages->kind_count; i++)
        forget_with(&pages->kinds[i], page);
}

/* Symbols are a linked list; a heap holds the merges that were possible when they were seen, and
 * one that is not any more is dropped when its turn comes. */
#include "proto/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "proto/text/unicode.h"

struct symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t previous, next;
};

struct candidate {
    uint64_t key; /* rank, then place: the left one of equals first */
    int32_t id;
};

/* ---- merges ---- */

int bpe_init(struct bpe *bpe, const struct vocabulary *vocabulary, size_t merges, struct error *err)
{
    *bpe = (struct bpe){.vocabulary = vocabulary,
                        .unknown = -1,
                        .secret = hash_text("secret of merges"),
                        .factor = hash_text("factor of merges") | 1};
    memset(bpe->byte_ids, 0xFF, sizeof bpe->byte_ids);
    size_t slots = 16;
    while (slots < merges * 2)
        slots *= 2;
    bpe->merges = malloc(slots * sizeof *bpe->merges);
    if (!bpe->merges)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu merges", merges);
    memset(bpe->merges, 0xFF, slots * sizeof *bpe->merges);
    bpe->slot_mask = slots - 1;
    for (uint32_t c = 0; c < BPE_TABLE_CHARACTERS; c++) {
        char text[4];
        bpe->character_ids[c] = vocabulary_find(vocabulary, text, unicode_write(text, c));
    }
    return 0;
}

void bpe_close(struct bpe *bpe)
{
    free(bpe->merges);
    bpe->merges = NULL;
}

/* By a factor that nobody outside the process knows: this is asked for every pair of a text. */
static size_t hash_of(const struct bpe *bpe, int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    const unsigned __int128 product = (unsigned __int128)(pair ^ bpe->secret) * bpe->factor;
    return (size_t)((uint64_t)(product >> 64) ^ (uint64_t)product);
}

/* The pair's merge, or the free slot where it would be. */
static struct merge *slot_of(const struct bpe *bpe, int32_t left, int32_t right)
{
    size_t slot = hash_of(bpe, left, right) & bpe->slot_mask;
    struct merge *merge = &bpe->merges[slot];
    while (merge->left >= 0 && !(merge->left == left && merge->right == right)) {
        slot = (slot + 1) & bpe->slot_mask;
        merge = &bpe->merges[slot];
    }
    return merge;
}

void bpe_merge(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    *slot_of(bpe, left, right) = (struct merge){left, right, rank, id};
}

/* ---- the heap ---- */

static struct candidate *candidates(const struct buffer *heap, size_t *count)
{
    *count = heap->length / sizeof(struct candidate);
    return (struct candidate *)(void *)heap->data;
}

static void heap_push(struct buffer *heap, struct candidate candidate)
{
    size_t at;
    buffer_append(heap, &candidate, sizeof candidate);
    struct candidate *all = candidates(heap, &at);
    if (heap->failed)
        return;
    for (at--; at > 0 && all[(at - 1) / 2].key > candidate.key; at = (at - 1) / 2)
        all[at] = all[(at - 1) / 2];
    all[at] = candidate;
}

static struct candidate heap_pop(struct buffer *heap)
{
    size_t count, at = 0;
    struct candidate *all = candidates(heap, &count);
    struct candidate top = all[0], last = all[--count];
    heap->length -= sizeof last;
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && all[child + 1].key < all[child].key)
            child++;
        if (all[child].key >= last.key)
            break;
        all[at] = all[child];
    }
    all[at] = last;
    return top;
}

/* ---- a word ---- */

static void add_symbol(struct buffer *symbols, int32_t id)
{
    int32_t place = (int32_t)(symbols->length / sizeof(struct symbol));
    buffer_append(symbols, &(struct symbol){id, place - 1, place + 1}, sizeof(struct symbol));
}

static bool add_bytes(const struct bpe *bpe, struct buffer *symbols, const char *bytes,
                      size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bpe->byte_ids[(unsigned char)bytes[i]] < 0)
            return false;
    for (size_t i = 0; i < length; i++)
        add_symbol(symbols, bpe->byte_ids[(unsigned char)bytes[i]]);
    return true;
}

static int32_t character_id(const struct bpe *bpe, uint32_t c, const char *text, size_t length)
{
    return c < BPE_TABLE_CHARACTERS ? bpe->character_ids[c]
                                    : vocabulary_find(bpe->vocabulary, text, length);
}

static void add_characters(const struct bpe *bpe, struct buffer *symbols, const char *word,
                           size_t length)
{
    bool fusing = false; /* the last symbol is an unknown one that takes in the next */
    for (const char *end = word + length, *next = word; word < end; word = next) {
        uint32_t c = unicode_next(&next);
        int32_t id = character_id(bpe, c, word, (size_t)(next - word));
        bool unknown = id < 0;
        if (unknown && add_bytes(bpe, symbols, word, (size_t)(next - word)))
            continue;
        if (unknown && bpe->unknown >= 0 && !(fusing && bpe->fuse_unknown))
            add_symbol(symbols, bpe->unknown);
        if (!unknown)
            add_symbol(symbols, id);
        fusing = unknown;
    }
}

static void push_pair(const struct bpe *bpe, const struct symbol *all, int32_t left,
                      struct buffer *heap)
{
    const struct merge *merge = slot_of(bpe, all[left].id, all[all[left].next].id);
    if (merge->left >= 0)
        heap_push(heap,
                  (struct candidate){(uint64_t)merge->rank << 32 | (uint32_t)left, merge->id});
}

static bool still_possible(const struct bpe *bpe, const struct symbol *all, int32_t count,
                           int32_t left, int32_t id)
{
    if (all[left].id < 0 || all[left].next >= count)
        return false;
    const struct merge *merge = slot_of(bpe, all[left].id, all[all[left].next].id);
    return merge->left >= 0 && merge->id == id;
}

static void merge_all(const struct bpe *bpe, struct symbol *all, int32_t count, struct buffer *heap)
{
    heap->length = 0;
    for (int32_t i = 0; i + 1 < count; i++)
        push_pair(bpe, all, i, heap);
    while (heap->length > 0 && !heap->failed) {
        struct candidate best = heap_pop(heap);
        int32_t left = (int32_t)(uint32_t)best.key;
        if (!still_possible(bpe, all, count, left, best.id))
            continue;
        struct symbol *right = &all[all[left].next];
        all[left].id = best.id;
        all[left].next = right->next;
        right->id = -1;
        if (all[left].next < count) {
            all[all[left].next].previous = left;
            push_pair(bpe, all, left, heap);
        }
        if (all[left].previous >= 0)
            push_pair(bpe, all, all[left].previous, heap);
    }
}

void bpe_append(const struct bpe *bpe, const char *word, size_t length, struct bpe_scratch *scratch,
                struct buffer *ids)
{
    int32_t whole = bpe->ignore_merges ? vocabulary_find(bpe->vocabulary, word, length) : -1;
    if (whole >= 0) {
        buffer_append(ids, &whole, sizeof whole);
        return;
    }
    scratch->symbols.length = 0;
    add_characters(bpe, &scratch->symbols, word, length);
    struct symbol *all = (struct symbol *)(void *)scratch->symbols.data;
    int32_t count = (int32_t)(scratch->symbols.length / sizeof *all);
    if (!scratch->symbols.failed)
        merge_all(bpe, all, count, &scratch->heap);
    if (scratch->symbols.failed || scratch->heap.failed) {
        ids->failed = true;
        ids->no_memory = scratch->symbols.no_memory || scratch->heap.no_memory;
        return;
    }
    for (int32_t i = 0; i < count; i = all[i].next)
        buffer_append(ids, &all[i].id, sizeof all[i].id);
}

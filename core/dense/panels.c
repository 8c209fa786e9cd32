/* Memory for packed weights. */
#include "core/dense/panels.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/memory.h"

/* The pages that large weights ask for: with them an address is translated once per two megabytes
 * instead of once per four kilobytes. Loading takes longer if memory is fragmented, because the
 * operating system then compacts it first. */
enum { HUGE_PAGE = 2 << 20 };

/* Blocks of a store, and the smallest matrix that is worth a place in one: small models need no
 * huge page. Larger matrices than a block get one of their own. */
enum { BLOCK = 32 << 20, SHARING = 256 << 10 };

static void *block_new(size_t bytes)
{
    void *panels;
    bool huge = bytes >= HUGE_PAGE;
    if (posix_memalign(&panels, huge ? HUGE_PAGE : PANEL_ALIGNMENT, bytes) != 0)
        return NULL;
    if (huge)
        madvise(panels, bytes, MADV_HUGEPAGE); /* advice: without huge pages products are slower */
    return panels;
}

/* ---- what models leave to each other ---- */

/* A page that comes from the kernel is cleared first, by a thread that is of no other use
 * meanwhile; and in a guest whose free pages are given back to its host, the host has to find it:
 * 500 MB then take more than a second of processor time, in which a virtual core stands still for
 * milliseconds at a time. So a model that is loaded right after another has gone gets that one's
 * memory: up to a gigabyte, which nobody who makes room for a model will miss. */
enum { MOST_SPARE = (1 << 30) / BLOCK };

static struct {
    pthread_mutex_t mutex;
    struct spare {
        struct spare *next; /* lies in the block itself */
    } * first;
    unsigned count;
    bool keep;
} spare = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *take_spare(void)
{
    pthread_mutex_lock(&spare.mutex);
    struct spare *block = spare.first;
    if (block) {
        spare.first = block->next;
        spare.count--;
    }
    pthread_mutex_unlock(&spare.mutex);
    return block;
}

static void give_back(const struct panels_block *block)
{
    pthread_mutex_lock(&spare.mutex);
    const bool kept = spare.keep && block->shared && spare.count < MOST_SPARE;
    if (kept) {
        struct spare *more = block->memory;
        more->next = spare.first;
        spare.first = more;
        spare.count++;
    }
    pthread_mutex_unlock(&spare.mutex);
    if (!kept)
        free(block->memory);
}

void panels_keep_spare(bool keep)
{
    pthread_mutex_lock(&spare.mutex);
    spare.keep = keep;
    pthread_mutex_unlock(&spare.mutex);
    for (void *block; !keep && (block = take_spare());)
        free(block);
}

bool panels_have_spare(void)
{
    pthread_mutex_lock(&spare.mutex);
    const bool some = spare.first;
    pthread_mutex_unlock(&spare.mutex);
    return some;
}

/* ---- a store ---- */

static void *store_block(struct panels_store *store, size_t bytes, bool shared)
{
    void *block = shared ? take_spare() : NULL;
    if (!block)
        block = block_new(bytes);
    if (!block)
        return NULL;
    store->blocks = xrealloc(store->blocks, (store->count + 1) * sizeof *store->blocks);
    store->blocks[store->count++] = (struct panels_block){block, shared};
    return block;
}

void *panels_new(struct panels_store *store, size_t bytes)
{
    if (!store)
        return block_new(bytes);
    if (bytes < SHARING || bytes > BLOCK)
        return store_block(store, bytes, false);
    bytes = (bytes + PANEL_ALIGNMENT - 1) / PANEL_ALIGNMENT * PANEL_ALIGNMENT;
    if (store->left < bytes) {
        store->next = store_block(store, BLOCK, true);
        store->left = store->next ? BLOCK : 0;
    }
    if (!store->next)
        return NULL;
    void *panels = store->next;
    store->next += bytes;
    store->left -= bytes;
    return panels;
}

void panels_store_close(struct panels_store *store)
{
    for (size_t i = 0; i < store->count; i++)
        give_back(&store->blocks[i]);
    free(store->blocks);
    *store = (struct panels_store){0};
}

int panels_error(const struct tensor *tensor, struct error *err)
{
    return tensor_error(tensor, err, ERROR_UNAVAILABLE, ": no memory for its weights");
}

/* Memory for packed weights. */
#include "core/dense/panels.h"

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

static void *store_block(struct panels_store *store, size_t bytes)
{
    void *block = block_new(bytes);
    if (!block)
        return NULL;
    store->blocks = xrealloc(store->blocks, (store->count + 1) * sizeof *store->blocks);
    store->blocks[store->count++] = block;
    return block;
}

void *panels_new(struct panels_store *store, size_t bytes)
{
    if (!store)
        return block_new(bytes);
    if (bytes < SHARING || bytes > BLOCK)
        return store_block(store, bytes);
    bytes = (bytes + PANEL_ALIGNMENT - 1) / PANEL_ALIGNMENT * PANEL_ALIGNMENT;
    if (store->left < bytes) {
        store->next = store_block(store, BLOCK);
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
        free(store->blocks[i]);
    free(store->blocks);
    *store = (struct panels_store){0};
}

int panels_error(const struct tensor *tensor, struct error *err)
{
    return tensor_error(tensor, err, ERROR_UNAVAILABLE, ": no memory for its weights");
}

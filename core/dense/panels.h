/* Panels: what packed weights are cut into, outputs side by side. */
#ifndef CORE_PANELS_H
#define CORE_PANELS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/load/tensor.h"

/* Outputs [first, end) of a product: `first` begins a panel, `end` another one, or is n. */
struct columns_of {
    size_t first, end;
};

/* Where a panel keeps an output's number of 16 bits: output i is beside output i + panel / 2, so
 * that a shift and a mask widen both. */
static inline size_t paired_place(size_t output, size_t panel)
{
    return output % (panel / 2) * 2 + output / (panel / 2);
}

/* A cache line. */
enum { PANEL_ALIGNMENT = 64 };

/* The panels of a model's matrices. Those of some size lie side by side in blocks of huge pages: a
 * matrix by itself, an expert's for instance, is hardly larger than such a page or smaller, and
 * most of it would lie in small ones. All 0: empty. */
struct panels_store {
    struct panels_block {
        void *memory;
        bool shared; /* of the size of all shared ones */
    } * blocks;      /* [count] owned */
    size_t count;
    char *next; /* what is left of the last shared block */
    size_t left;
};

/* Memory for panels at the alignment of cache lines. It belongs to `store`; with NULL, the caller
 * frees it. NULL: there is none. */
void *panels_new(struct panels_store *store, size_t bytes);
void panels_store_close(struct panels_store *store);

/* Whether shared blocks that stores give back are kept for the next ones; false frees those that
 * are. Whether there are any. Any thread. */
void panels_keep_spare(bool keep);
bool panels_have_spare(void);

/* Says that there is no memory for the tensor's weights. Returns -1. */
int panels_error(const struct tensor *tensor, struct error *err);

#endif

/* Blocks of a fixed size, and one of its own for whatever is larger. */
#include "proto/text/arena.h"

#include <stdlib.h>

enum { BLOCK_BYTES = 16 << 10, ALIGNMENT = 16 };

struct arena_block {
    struct arena_block *before;
    size_t size;
    _Alignas(ALIGNMENT) char bytes[];
};

void arena_init(struct arena *arena, size_t limit)
{
    *arena = (struct arena){.limit = limit};
}

void arena_close(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->before;
        free(block);
    }
}

static struct arena_block *new_block(struct arena *arena, size_t size)
{
    if (size > arena->limit)
        return NULL;
    struct arena_block *block = calloc(1, sizeof *block + size);
    if (!block) {
        arena->no_memory = true;
        return NULL;
    }
    arena->limit -= size;
    block->size = size;
    return block;
}

void *arena_take(struct arena *arena, size_t bytes)
{
    if (bytes > arena->limit && bytes > arena->left)
        return NULL;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (rounded > BLOCK_BYTES / 4) { /* behind the newest, which goes on being used */
        struct arena_block *block = new_block(arena, rounded);
        if (!block)
            return NULL;
        block->before = arena->blocks ? arena->blocks->before : NULL;
        if (arena->blocks)
            arena->blocks->before = block;
        else
            arena->blocks = block;
        return block->bytes;
    }
    if (rounded > arena->left) {
        struct arena_block *block = new_block(arena, BLOCK_BYTES);
        if (!block)
            return NULL;
        block->before = arena->blocks;
        arena->blocks = block;
        arena->left = BLOCK_BYTES;
    }
    arena->left -= rounded;
    return arena->blocks->bytes + arena->left;
}

/* Memory that is given back all at once, within a limit. */
#ifndef PROTO_TEXT_ARENA_H
#define PROTO_TEXT_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks;
    size_t left, limit; /* in the newest block; of all bytes still to give */
    bool no_memory;     /* memory ran out; the limit was not reached */
};

void arena_init(struct arena *arena, size_t limit);
void arena_close(struct arena *arena);

/* Zeroed, aligned for anything; NULL when the limit is reached or there is no memory. */
void *arena_take(struct arena *arena, size_t bytes);

#endif

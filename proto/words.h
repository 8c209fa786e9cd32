/* The words that an input of categories may hold: category i is called by the i-th. */
#ifndef PROTO_WORDS_H
#define PROTO_WORDS_H

#include <stddef.h>
#include <stdint.h>

struct words {
    const char *const *list; /* [count] borrowed; no two are equal */
    size_t count;
    uint32_t *order; /* [count] categories by word; owned */
};

void words_init(struct words *words, const char *const *list, size_t count);
void words_close(struct words *words);

/* The category that is called so; -1: none. The text may hold any bytes. */
int32_t words_find(const struct words *words, const char *text, size_t length);

#endif

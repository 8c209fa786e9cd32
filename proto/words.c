/* A sorted list and binary search: sixteen steps for the largest vocabularies. */
#include "proto/words.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

static int compare(const void *a, const void *b, void *context)
{
    const char *const *list = context;
    return strcmp(list[*(const uint32_t *)a], list[*(const uint32_t *)b]);
}

void words_init(struct words *words, const char *const *list, size_t count)
{
    *words = (struct words){list, count, xcalloc(count, sizeof *words->order)};
    for (size_t i = 0; i < count; i++)
        words->order[i] = (uint32_t)i;
    qsort_r(words->order, count, sizeof *words->order, compare, (void *)list);
}

void words_close(struct words *words)
{
    free(words->order);
    *words = (struct words){0};
}

/* Like strcmp(), where `text` does not end with a NUL. */
static int compare_text(const char *text, size_t length, const char *word)
{
    size_t word_length = strlen(word);
    int order = memcmp(text, word, length < word_length ? length : word_length);
    return order ? order : (length > word_length) - (length < word_length);
}

int32_t words_find(const struct words *words, const char *text, size_t length)
{
    size_t from = 0, to = words->count;
    while (from < to) {
        size_t middle = (from + to) / 2;
        int order = compare_text(text, length, words->list[words->order[middle]]);
        if (order == 0)
            return (int32_t)words->order[middle];
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    return -1;
}

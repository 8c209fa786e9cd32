/* One hash table with linear probing; the texts lie one after another. */
#include "proto/text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"

/* All texts: offsets are 32 bits. */
enum { TEXTS_MAX_BYTES = 1 << 28 };

void vocabulary_init(struct vocabulary *vocabulary)
{
    *vocabulary = (struct vocabulary){0};
    buffer_init(&vocabulary->texts, TEXTS_MAX_BYTES);
}

void vocabulary_close(struct vocabulary *vocabulary)
{
    free(vocabulary->tokens);
    free(vocabulary->slots);
    buffer_close(&vocabulary->texts);
}

int vocabulary_grow(struct vocabulary *vocabulary, size_t size, struct error *err)
{
    if (size <= vocabulary->size)
        return 0;
    if (size > VOCABULARY_MAX_TOKENS)
        return error_set(err, ERROR_TOO_LARGE, "token id %zu: at most %d ids are allowed", size - 1,
                         VOCABULARY_MAX_TOKENS);
    struct token *tokens = realloc(vocabulary->tokens, size * sizeof *tokens);
    if (!tokens)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu tokens", size);
    memset(tokens + vocabulary->size, 0, (size - vocabulary->size) * sizeof *tokens);
    vocabulary->tokens = tokens;
    vocabulary->size = size;
    return 0;
}

int vocabulary_put(struct vocabulary *vocabulary, size_t id, const char *text, size_t length,
                   struct error *err)
{
    if (length > TOKEN_MAX_BYTES)
        return error_set(err, ERROR_TOO_LARGE, "token %zu has %zu bytes, at most %d are allowed",
                         id, length, TOKEN_MAX_BYTES);
    uint32_t offset = (uint32_t)vocabulary->texts.length;
    buffer_append(&vocabulary->texts, text, length);
    if (vocabulary->texts.failed)
        return buffer_error(&vocabulary->texts, "the vocabulary", "no tokenizer needs so much",
                            err);
    vocabulary->tokens[id] = (struct token){offset, (uint16_t)length, TOKEN_PRESENT};
    if (length > vocabulary->longest)
        vocabulary->longest = length;
    return 0;
}

const char *vocabulary_text(const struct vocabulary *vocabulary, int64_t id, size_t *length)
{
    *length = 0;
    if (id < 0 || (size_t)id >= vocabulary->size || !vocabulary->tokens[id].flags)
        return NULL;
    *length = vocabulary->tokens[id].length;
    return vocabulary->texts.data ? vocabulary->texts.data + vocabulary->tokens[id].offset : "";
}

/* Where the text is, or the free slot where it would be. */
static size_t slot_of(const struct vocabulary *vocabulary, const char *text, size_t length)
{
    size_t slot = hash_key(text, length) & vocabulary->slot_mask;
    for (; vocabulary->slots[slot] >= 0; slot = (slot + 1) & vocabulary->slot_mask) {
        size_t its_length;
        const char *its = vocabulary_text(vocabulary, vocabulary->slots[slot], &its_length);
        if (its_length == length && memcmp(its, text, length) == 0)
            break;
    }
    return slot;
}

int vocabulary_index(struct vocabulary *vocabulary, struct error *err)
{
    size_t slots = 16;
    while (slots < vocabulary->size * 2)
        slots *= 2;
    vocabulary->slots = malloc(slots * sizeof *vocabulary->slots);
    if (!vocabulary->slots)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu tokens", vocabulary->size);
    memset(vocabulary->slots, 0xFF, slots * sizeof *vocabulary->slots);
    vocabulary->slot_mask = slots - 1;
    for (size_t id = 0; id < vocabulary->size; id++) {
        size_t length;
        const char *text = vocabulary_text(vocabulary, (int64_t)id, &length);
        if (text)
            vocabulary->slots[slot_of(vocabulary, text, length)] = (int32_t)id;
    }
    return 0;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *text, size_t length)
{
    return vocabulary->slots[slot_of(vocabulary, text, length)];
}

/* Penalties walk the tokens that occurred, which are few, and not the vocabulary. */
#include "core/sampler_history.h"

#include <assert.h>
#include <stdlib.h>

#include "core/hash.h"
#include "core/memory.h"

struct sampler_history *sampler_history_new(size_t tokens, struct error *err)
{
    size_t slots = 2;
    while (slots / 2 < tokens) /* at most half full */
        slots *= 2;
    struct sampler_history *history = xcalloc(1, sizeof *history);
    history->most = tokens;
    history->slot_mask = slots - 1;
    history->seen = calloc_checked(tokens ? tokens : 1, sizeof *history->seen, err);
    history->slots = calloc_checked(slots, sizeof *history->slots, err);
    if (history->seen && history->slots)
        return history;
    sampler_history_free(history);
    return NULL;
}

void sampler_history_free(struct sampler_history *history)
{
    if (!history)
        return;
    free(history->seen);
    free(history->slots);
    free(history);
}

static struct sampler_seen *find_or_add(struct sampler_history *history, int32_t token)
{
    size_t slot = hash_key(&token, sizeof token) & history->slot_mask;
    for (; history->slots[slot] != 0; slot = (slot + 1) & history->slot_mask) {
        struct sampler_seen *seen = &history->seen[history->slots[slot] - 1];
        if (seen->token == token)
            return seen;
    }
    assert(history->count < history->most);
    struct sampler_seen *seen = &history->seen[history->count++];
    history->slots[slot] = (uint32_t)history->count;
    seen->token = token;
    return seen;
}

void sampler_history_prompt(struct sampler_history *history, int32_t token)
{
    (void)find_or_add(history, token);
}

void sampler_history_answer(struct sampler_history *history, int32_t token)
{
    find_or_add(history, token)->answered++;
}

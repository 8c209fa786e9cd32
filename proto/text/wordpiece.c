/* Candidates are built behind the prefix in one small array. */
#include "proto/text/wordpiece.h"

#include <string.h>

#include "proto/text/unicode.h"

static bool is_short(const struct wordpiece *wordpiece, const char *word, size_t length)
{
    int64_t characters = 0;
    for (const char *end = word + length; word < end; unicode_next(&word))
        characters++;
    return characters <= wordpiece->max_characters;
}

/* The longest token that [start, end) begins with; moves *start behind it. -1: none. */
static int32_t longest(const struct wordpiece *wordpiece, bool continues, const char **start,
                       const char *end)
{
    char text[WORDPIECE_MAX_PREFIX + 4 * WORDPIECE_MAX_CHARACTERS];
    size_t before = continues ? strlen(wordpiece->prefix) : 0;
    const size_t most = wordpiece->vocabulary->longest;
    while (before + (size_t)(end - *start) > most && end > *start) /* no token is longer */
        end = unicode_previous(end);
    memcpy(text, wordpiece->prefix, before);
    memcpy(text + before, *start, (size_t)(end - *start));
    for (; end > *start; end = unicode_previous(end)) {
        size_t length = before + (size_t)(end - *start);
        int32_t id = vocabulary_find(wordpiece->vocabulary, text, length);
        if (id >= 0) {
            *start = end;
            return id;
        }
    }
    return -1;
}

void wordpiece_append(const struct wordpiece *wordpiece, const char *word, size_t length,
                      struct buffer *ids)
{
    size_t before = ids->length;
    const char *at = word, *end = word + length;
    bool covered = is_short(wordpiece, word, length);
    while (covered && at < end) {
        int32_t id = longest(wordpiece, at > word, &at, end);
        covered = id >= 0;
        if (covered)
            buffer_append(ids, &id, sizeof id);
    }
    if (!covered) {
        ids->length = before;
        buffer_append(ids, &wordpiece->unknown, sizeof wordpiece->unknown);
    }
}

/* A short list, searched from the front. */
#include "server/statistics/tags.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

static const char OTHER[] = "other";

void tags_init(struct tags *tags, size_t most)
{
    *tags = (struct tags){.most = most, .names = xcalloc(most, sizeof *tags->names)};
    if (uv_mutex_init(&tags->mutex) != 0)
        out_of_memory();
}

void tags_close(struct tags *tags)
{
    uv_mutex_destroy(&tags->mutex);
    free(tags->names);
}

size_t tags_end(const struct tags *tags)
{
    return TAG_FIRST + tags->most + 1;
}

static size_t place_of(const struct tags *tags, const char *name)
{
    size_t i = 0;
    while (i < tags->count && strcmp(tags->names[i], name) != 0)
        i++;
    return i;
}

size_t tags_index(struct tags *tags, const char *name)
{
    if (strcmp(name, OTHER) == 0)
        return TAG_FIRST + tags->most;
    uv_mutex_lock(&tags->mutex);
    size_t place = place_of(tags, name);
    if (place == tags->count && place < tags->most) {
        strncpy(tags->names[place], name, NAME_MAX_BYTES);
        tags->count++;
    }
    uv_mutex_unlock(&tags->mutex);
    return TAG_FIRST + (place < tags->most ? place : tags->most);
}

int tags_find(struct tags *tags, const char *name)
{
    if (strcmp(name, OTHER) == 0)
        return (int)(TAG_FIRST + tags->most);
    uv_mutex_lock(&tags->mutex);
    size_t place = place_of(tags, name);
    bool found = place < tags->count;
    uv_mutex_unlock(&tags->mutex);
    return found ? (int)(TAG_FIRST + place) : -1;
}

const char *tags_name(struct tags *tags, size_t index)
{
    if (index == TAG_FIRST + tags->most)
        return OTHER;
    uv_mutex_lock(&tags->mutex);
    bool named = index - TAG_FIRST < tags->count;
    uv_mutex_unlock(&tags->mutex);
    return named ? tags->names[index - TAG_FIRST] : NULL;
}

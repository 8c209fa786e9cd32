/* Tags say on whose behalf rows were sent: a bounded number of names for each model, in the order
 * in which they were first seen. What comes later is one tag together, "other". */
#ifndef SERVER_TAGS_H
#define SERVER_TAGS_H

#include <stdbool.h>
#include <uv.h>

#include "core/text.h"

enum { TAG_NONE = 0, TAG_FIRST = 1 }; /* rows without a tag; the first name */

struct tags {
    uv_mutex_t mutex;
    size_t count, most; /* of names */
    char (*names)[NAME_MAX_BYTES + 1];
};

void tags_init(struct tags *tags, size_t most);
void tags_close(struct tags *tags);

/* Indices of tags are below this: none, the names, other. */
size_t tags_end(const struct tags *tags);

/* The index of a name, which takes a place if there is one left. "other" is always the last. */
size_t tags_index(struct tags *tags, const char *name);

/* The same for a name that was seen; -1: it was not. */
int tags_find(struct tags *tags, const char *name);

/* The name at an index from TAG_FIRST on; NULL: it has none yet. Lives as long as the tags. */
const char *tags_name(struct tags *tags, size_t index);

#endif

/* The bytes of a file, mapped read-only or copied.
 *
 * A mapped file may be truncated or rewritten by somebody else. Reading a page that is no longer
 * there would end the process (SIGBUS). With file_map_survive() it reads zeros instead, and the map
 * is damaged from then on: its owner finds out, and throws away what was computed from it. */
#ifndef CORE_FILE_MAP_H
#define CORE_FILE_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct file_map {
    void *base;
    size_t bytes;
    struct map_slot *slot; /* where the signal handler finds it; NULL: a copy */
};

/* `copy`: reads all of it now. Files shorter than `least` bytes are refused. */
MUST_CHECK int file_map_init(struct file_map *map, const char *path, size_t least, bool copy,
                             struct error *err);
void file_map_close(struct file_map *map);

/* Whether a page of it was gone when it was read. Any thread. */
bool file_map_is_damaged(const struct file_map *map);

/* Process-wide: no damaged map ends the process from now on. */
MUST_CHECK int file_map_survive(struct error *err);

#endif

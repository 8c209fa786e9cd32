/* Files of the state directory. One is replaced by renaming a complete one onto it, so that a crash
 * at any moment leaves the one or the other. All of this takes as long as the disk does. */
#ifndef SERVER_STATE_FILE_H
#define SERVER_STATE_FILE_H

#include <stdbool.h>

#include "proto/buffer.h"

MUST_CHECK int state_file_replace(const char *directory, const char *name,
                                  const struct buffer *body, struct error *err);

/* All of it, with a NUL behind; the caller frees. NULL with an error, or without one if there is no
 * such file. One of more than `most` bytes is an error. */
MUST_CHECK char *state_file_read(const char *directory, const char *name, size_t most,
                                 size_t *length, struct error *err);

/* Whether that error is about what is there, which is no file of ours; else it could not be read,
 * which may be otherwise the next time. */
bool state_file_is_wrong(const struct error *err);

/* Renames it to NAME.damaged. */
bool state_file_set_aside(const char *directory, const char *name);

#endif

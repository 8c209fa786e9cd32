/* Whole files of bounded size. Errors do not name the path: the caller knows it. */
#ifndef CORE_FILE_H
#define CORE_FILE_H

#include <stddef.h>

#include "core/error.h"

/* The bytes of a regular file of at most `most`, and a NUL behind them that is not counted; the
 * caller frees. NULL with an error: ERROR_NOT_FOUND when there is no such file, ERROR_TOO_LARGE
 * when it has more. */
MUST_CHECK char *file_read(const char *path, size_t most, size_t *length, struct error *err);

/* The same of an open file, which it closes. */
MUST_CHECK char *file_read_open(int fd, size_t most, size_t *length, struct error *err);

/* Reads `count` bytes. -1 with errno if that fails, or if there are fewer. */
MUST_CHECK int file_read_bytes(int fd, char *bytes, size_t count);

#endif

/* A whole file of bounded size. */
#ifndef PROTO_TEXT_FILE_H
#define PROTO_TEXT_FILE_H

#include <stddef.h>

#include "core/error.h"

/* Its bytes, not NUL-terminated; NULL with an error that does not name the path (ERROR_NOT_FOUND
 * when there is no such file). Caller frees. */
MUST_CHECK char *file_read(const char *path, size_t most, size_t *length, struct error *err);

#endif

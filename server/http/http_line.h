/* The lines of a request: of its header, its chunk sizes and its trailer. */
#ifndef SERVER_HTTP_LINE_H
#define SERVER_HTTP_LINE_H

#include <stddef.h>

#include "core/error.h"

/* A line whose end is looked for; both count from the first byte of what is read. */
struct http_line {
    size_t begin, seen;
};

/* Looks for the end of a line in bytes[line->begin, length). Returns 1 when line->seen is behind
 * its CRLF, 0 when more is needed, -1 when it holds a control character or a bare CR or LF. */
MUST_CHECK int http_line_read(struct http_line *line, const char *bytes, size_t length,
                              struct error *err);

#endif

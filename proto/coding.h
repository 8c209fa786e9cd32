/* Content codings of bodies: gzip and deflate, by zlib. */
#ifndef PROTO_CODING_H
#define PROTO_CODING_H

#include <stdbool.h>

#include "proto/buffer.h"

enum coding { CODING_IDENTITY, CODING_GZIP, CODING_DEFLATE };

/* The coding that a Content-Encoding names; NULL: identity. -1 with an error if it is another, or
 * several. */
MUST_CHECK int coding_of(const char *name, enum coding *coding, struct error *err);

/* Appends what the bytes stand for. Fails if they are damaged or cut off, if others follow them,
 * and with ERROR_TOO_LARGE where `to` has its limit, before that is exceeded. */
MUST_CHECK int coding_expand(enum coding coding, const char *bytes, size_t length,
                             struct buffer *to, struct error *err);

/* Whether an Accept-Encoding takes gzip. NULL: no. */
bool coding_accepts_gzip(const char *accepted);

/* Appends the bytes as gzip, at the speed of a network. `to` fails where its limit is less than
 * they take. */
void coding_compress(const char *bytes, size_t length, struct buffer *to);

#endif

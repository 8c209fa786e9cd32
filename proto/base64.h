/* Bytes as base64 text (RFC 4648, padded): arrays in JSON for clients that read them as such. */
#ifndef PROTO_BASE64_H
#define PROTO_BASE64_H

#include "proto/buffer.h"

/* Appends the text, without quotes. */
void base64_append(struct buffer *to, const void *bytes, size_t count);

#endif

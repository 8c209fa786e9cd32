/* Bytes as printable characters: how GPT-2 writes tokens that are no text. */
#ifndef PROTO_TEXT_BYTE_LEVEL_H
#define PROTO_TEXT_BYTE_LEVEL_H

#include <stdint.h>

#include "proto/buffer.h"

void byte_level_append(struct buffer *to, const char *bytes, size_t length);

/* The byte that a character stands for; -1: none. */
int byte_level_byte(uint32_t c);

#endif

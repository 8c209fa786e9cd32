/* Characters: UTF-8, general categories, white space and canonical order, of Unicode 15.0. */
#ifndef PROTO_TEXT_UNICODE_H
#define PROTO_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

/* Of a class mask: one bit for each general category (utf8proc's numbers), and this one for
 * White_Space, which is no category. */
#define CLASS_SPACE (1u << 31)
#define CLASS_L     0x3Eu
#define CLASS_MN    0x40u
#define CLASS_M     0x1C0u
#define CLASS_ND    0x200u
#define CLASS_NL    0x400u
#define CLASS_PC    0x1000u
#define CLASS_CC    (1u << 26)
#define CLASS_CF    (1u << 27)
#define CLASS_CO    (1u << 29)

/* Where the first byte that is not UTF-8 stands (NUL is a character); `length`: none. */
size_t unicode_check(const char *text, size_t length);

/* Characters that begin in the bytes. */
size_t unicode_count(const char *text, size_t length);

/* The character at *text, which must be UTF-8, and moves behind it. */
uint32_t unicode_next(const char **text);

/* The start of the character that ends before `text`. */
const char *unicode_previous(const char *text);

/* Writes at most 4 bytes; returns how many. */
size_t unicode_write(char *to, uint32_t c);
void unicode_append(struct buffer *to, uint32_t c);

/* The category's bit, and CLASS_SPACE for white space. */
uint32_t unicode_class(uint32_t c);

/* The mask of a category ("Lu") or a group ("L"); 0: there is none of that name. */
uint32_t unicode_class_named(const char *name, size_t length);

bool unicode_is_space(uint32_t c);
bool unicode_is_word(uint32_t c);

#endif

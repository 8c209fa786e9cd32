/* UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef PROTO_UTF8_H
#define PROTO_UTF8_H

#include <stddef.h>

/* What stands in for bytes that are not UTF-8. */
#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* Bytes of the character at the start of the NUL-terminated `text`; 0 when the bytes there are not
 * UTF-8 (or at the NUL). */
size_t utf8_character(const char *text);

#endif

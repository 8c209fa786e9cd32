/* UTF-8 from servers, files and command lines: what of it is whole, and what may be shown. */
#ifndef CLIENT_TEXT_H
#define CLIENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at `text`, NUL-terminated, and its code point; 0: none begins here.
 * Overlong forms and surrogates are none: jansson takes none either. */
size_t text_character(const char *text, uint32_t *code);

/* Whether a terminal obeys it instead of showing it: control characters of both sets, separators of
 * lines and paragraphs, and what turns the direction of the text around it. */
bool text_is_control(uint32_t code);

/* Takes out of `text` what is no whole character: the end of a buffer, or "%.100s", cuts names
 * anywhere. */
void text_keep_whole(char *text);

/* A copy of a URL without the name and password in it, for errors and screens. The caller frees;
 * NULL: no memory. */
char *text_without_password(const char *url);

#endif

/* Text from outside: characters, names, whole numbers, shapes. Shared by every room. */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- characters ---- */

/* What stands in for bytes that are not UTF-8. */
#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* Bytes of the character at the start of the NUL-terminated `text`; 0 when the bytes there are not
 * UTF-8 as RFC 3629 defines it (no overlong forms, no surrogates, nothing past U+10FFFF), or at the
 * NUL. */
size_t utf8_character(const char *text);

/* Whether a character is a control: C0, DEL or C1, which are line breaks and terminal escapes. */
bool utf8_is_control(const char *character);

/* Turns every control character and every byte that is not UTF-8 into '?': for text from a file or
 * a client on its way to a terminal or a log. */
void text_make_printable(char *text);

/* White space of JSON. */
static inline bool text_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The value of a hexadecimal digit; -1: none. */
static inline int text_hex_digit(char c)
{
    char letter = (char)(c | 0x20);
    if (c >= '0' && c <= '9')
        return c - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* ---- names ---- */

/* Layers and gates; models may be longer. NAME_ALPHABET says in messages what a name is made of. */
enum { NAME_MAX_BYTES = 64 };
#define NAME_ALPHABET "letters, digits, '_', '-' or '.'"

/* At most `max_bytes` of NAME_ALPHABET: names become parts of tensor names, paths, metric labels
 * and logs. The empty name is one. */
bool name_is_valid(const char *name, size_t max_bytes);

/* ---- numbers and shapes ---- */

/* Reads digits: no sign, no blank. Returns the byte after them; NULL when there are none or when
 * their number does not fit. */
const char *text_whole_number(const char *text, uint64_t *value);

/* Writes "[rows, 1, 28]": `first` (NULL: nothing) and `rank` sizes, separated. What does not fit is
 * cut. Returns `text`. */
enum { SHAPE_TEXT_BYTES = 160 };
const char *text_of_shape(char text[SHAPE_TEXT_BYTES], const char *first, const size_t *dims,
                          size_t rank, const char *separator);

#endif

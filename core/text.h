/* Untrusted text: characters, names, whole numbers and shapes. Used by all directories. */
#ifndef CORE_TEXT_H
#define CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- characters ---- */

/* Replaces bytes that are not UTF-8. */
#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

/* Bytes of the character at the start of the NUL-terminated `text`; 0 at the NUL, and if the bytes
 * there are not UTF-8 as RFC 3629 defines it (no overlong forms, no surrogates, nothing past
 * U+10FFFF). */
size_t utf8_character(const char *text);

/* The same for at least one byte of text that need not end with a NUL; a NUL is a character. 0 also
 * for a character that `length` cuts. */
size_t utf8_character_of(const char *text, size_t length);

/* Whether a character is obeyed instead of shown: C0, DEL and C1, which are line breaks and
 * terminal escapes, U+2028 and U+2029, and what turns the direction of the text around it. */
bool utf8_is_control(const char *character);

/* Replaces every control character and every byte that is not UTF-8 by '?', for text from a file or
 * a client that goes to a terminal or a log. */
void text_make_printable(char *text);

/* Copies a URL with "***" for a name and a password in it, for messages: all up to its last '@',
 * since a password may hold what should have been encoded. Text that does not fit is cut. */
void text_hide_user(const char *url, char *to, size_t size);

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

/* ---- counts ---- */

/* What a noun ends with behind its number: "1 row", "2 rows". */
static inline const char *text_s(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/* ---- names ---- */

/* Bounds names of layers and gates; those of models may be longer. NAME_ALPHABET describes valid
 * names in messages. */
enum { NAME_MAX_BYTES = 64 };
#define NAME_ALPHABET "letters, digits, '_', '-' or '.'"

/* Whether `name` has at most `max_bytes`, all of NAME_ALPHABET: names become parts of tensor names,
 * paths, metric labels and logs. The empty name is valid. */
bool name_is_valid(const char *name, size_t max_bytes);

/* Takes the next item of a list with commas between and moves the list behind it; false at its end.
 */
bool text_next_item(const char **list, const char **item, size_t *length);

/* ---- numbers and shapes ---- */

/* Reads digits, without sign or blanks. Returns the byte after them; NULL if there are none or
 * their value does not fit. */
const char *text_whole_number(const char *text, uint64_t *value);

/* Writes "[rows, 1, 28]": `first` (unless NULL) and `rank` sizes, with separators. Text that does
 * not fit is cut. Returns `text`. */
enum { SHAPE_TEXT_BYTES = 160 };
const char *text_of_shape(char text[SHAPE_TEXT_BYTES], const char *first, const size_t *dims,
                          size_t rank, const char *separator);

#endif

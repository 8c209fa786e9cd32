/* The rules for untrusted text have one implementation each, and it is here. */
#include "core/text.h"

#include <stdio.h>
#include <string.h>

/* ---- characters ---- */

static size_t sequence_bytes(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead < 0xE0)
        return 2;
    if (lead >= 0xE0 && lead < 0xF0)
        return 3;
    if (lead >= 0xF0 && lead < 0xF5)
        return 4;
    return 0;
}

/* After four lead bytes the second byte's range is narrower: this rules out overlong forms,
 * surrogates and code points past U+10FFFF. */
static bool second_byte_fits(unsigned char lead, unsigned char second)
{
    unsigned char lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return second >= lowest && second <= highest;
}

size_t utf8_character(const char *text)
{
    return *text ? utf8_character_of(text, SIZE_MAX) : 0; /* no NUL continues a character */
}

size_t utf8_character_of(const char *text, size_t length)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t count = sequence_bytes(bytes[0]);
    if (count > length || (count > 1 && !second_byte_fits(bytes[0], bytes[1])))
        return 0;
    for (size_t i = 2; i < count; i++)
        if ((bytes[i] & 0xC0) != 0x80)
            return 0;
    return count;
}

bool utf8_is_control(const char *character)
{
    const unsigned char *bytes = (const unsigned char *)character;
    switch (bytes[0]) {
    case 0xC2: /* C1 */
        return bytes[1] < 0xA0;
    case 0xD8: /* U+061C */
        return bytes[1] == 0x9C;
    case 0xE2: /* U+200E, U+200F, U+2028 to U+202E; U+2066 to U+2069 */
        if (bytes[1] == 0x80)
            return bytes[2] == 0x8E || bytes[2] == 0x8F || (bytes[2] >= 0xA8 && bytes[2] <= 0xAE);
        return bytes[1] == 0x81 && bytes[2] >= 0xA6 && bytes[2] <= 0xA9;
    default:
        return bytes[0] < 0x20 || bytes[0] == 0x7F;
    }
}

void text_make_printable(char *text)
{
    while (*text) {
        size_t bytes = utf8_character(text);
        if (bytes > 0 && !utf8_is_control(text)) {
            text += bytes;
            continue;
        }
        /* Byte by byte: what follows the first byte of a control is not a character either. */
        *text++ = '?';
    }
}

void text_hide_user(const char *url, char *to, size_t size)
{
    const char *at = strrchr(url, '@'), *scheme = strstr(url, "://");
    const size_t kept = scheme && at && scheme < at ? (size_t)(scheme - url) + strlen("://") : 0;
    snprintf(to, size, "%.*s%s%s", (int)kept, url, at ? "***" : "", at ? at : url);
}

/* ---- names ---- */

bool name_is_valid(const char *name, size_t max_bytes)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t length = strspn(name, allowed);
    return name[length] == '\0' && length <= max_bytes;
}

/* ---- numbers and shapes ---- */

bool text_next_item(const char **list, const char **item, size_t *length)
{
    if (!**list)
        return false;
    *item = *list;
    *length = strcspn(*list, ",");
    *list += *length + ((*list)[*length] == ',');
    return true;
}

const char *text_whole_number(const char *text, uint64_t *value)
{
    const char *c = text;
    for (*value = 0; *c >= '0' && *c <= '9'; c++)
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(*c - '0'), value))
            return NULL;
    return c > text ? c : NULL;
}

const char *text_of_shape(char text[SHAPE_TEXT_BYTES], const char *first, const size_t *dims,
                          size_t rank, const char *separator)
{
    int used = snprintf(text, SHAPE_TEXT_BYTES, "[%s", first ? first : "");
    for (size_t i = 0; i < rank && used < SHAPE_TEXT_BYTES; i++)
        used += snprintf(text + used, SHAPE_TEXT_BYTES - (size_t)used, "%s%zu",
                         first || i > 0 ? separator : "", dims[i]);
    if (used < SHAPE_TEXT_BYTES)
        snprintf(text + used, SHAPE_TEXT_BYTES - (size_t)used, "]");
    return text;
}

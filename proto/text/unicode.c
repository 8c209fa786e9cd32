/* utf8proc's tables, but for White_Space, which it does not have. */
#include "proto/text/unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "core/text.h"

/* ---- UTF-8 ---- */

size_t unicode_check(const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        size_t count = utf8_character_of(text + at, length - at);
        if (count == 0)
            return at;
        at += count;
    }
    return length;
}

size_t unicode_count(const char *text, size_t length)
{
    size_t count = 0;
    for (size_t i = 0; i < length; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

uint32_t unicode_next(const char **text)
{
    const unsigned char *bytes = (const unsigned char *)*text;
    size_t count = bytes[0] < 0x80 ? 1 : bytes[0] < 0xE0 ? 2 : bytes[0] < 0xF0 ? 3 : 4;
    uint32_t c = count < 2 ? bytes[0] : bytes[0] & (0x7Fu >> count);
    for (size_t i = 1; i < count; i++)
        c = c << 6 | (bytes[i] & 0x3F);
    *text += count;
    return c;
}

const char *unicode_previous(const char *text)
{
    do
        text--;
    while ((*text & 0xC0) == 0x80);
    return text;
}

size_t unicode_write(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    size_t count = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = count - 1; i > 0; i--, c >>= 6)
        to[i] = (char)(0x80 | (c & 0x3F));
    to[0] = (char)((0xF00 >> count & 0xFF) | c);
    return count;
}

void unicode_append(struct buffer *to, uint32_t c)
{
    char bytes[4];
    buffer_append(to, bytes, unicode_write(bytes, c));
}

/* ---- classes ---- */

bool unicode_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

uint32_t unicode_class(uint32_t c)
{
    uint32_t category = 1u << utf8proc_category((utf8proc_int32_t)c);
    return unicode_is_space(c) ? category | CLASS_SPACE : category;
}

uint32_t unicode_class_named(const char *name, size_t length)
{
    /* utf8proc's order. */
    static const char names[][3] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd",
                                    "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
                                    "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};
    uint32_t mask = 0;
    if (length != 1 && length != 2)
        return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (memcmp(names[i], name, length) == 0)
            mask |= 1u << i;
    return mask;
}

bool unicode_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c | 0x20) - 'a' < 26 || c - '0' < 10 || c == '_';
    uint32_t words = CLASS_L | CLASS_M | CLASS_ND | CLASS_NL | CLASS_PC;
    bool circled = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                   (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    return (unicode_class(c) & words) || circled || c == 0x200C || c == 0x200D;
}

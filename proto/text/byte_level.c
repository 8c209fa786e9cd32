/* Printable characters of Latin-1 stand for themselves, the other 68 bytes for U+0100 on. */
#include "proto/text/byte_level.h"

#include <stdbool.h>

#include "proto/text/unicode.h"

static bool stands_for_itself(uint32_t byte)
{
    return (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte <= 0xFF && byte != 0xAD);
}

/* The others in order: 0 to 32, 127 to 160, 173. */
static uint32_t character_of(uint32_t byte)
{
    if (stands_for_itself(byte))
        return byte;
    return 0x100 + (byte <= 0x20 ? byte : byte < 0xAD ? byte - 0x7F + 33 : 67);
}

void byte_level_append(struct buffer *to, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        unicode_append(to, character_of((unsigned char)bytes[i]));
}

int byte_level_byte(uint32_t c)
{
    if (c <= 0xFF)
        return stands_for_itself(c) ? (int)c : -1;
    uint32_t place = c - 0x100;
    if (place <= 32)
        return (int)place;
    return place < 67 ? (int)(place - 33 + 0x7F) : place == 67 ? 0xAD : -1;
}

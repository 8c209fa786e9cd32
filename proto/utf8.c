/* UTF-8 validation; see utf8.h. */
#include "proto/utf8.h"

static size_t sequence_bytes(unsigned char lead)
{
    if (lead >= 0x01 && lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead < 0xE0)
        return 2;
    if (lead >= 0xE0 && lead < 0xF0)
        return 3;
    if (lead >= 0xF0 && lead < 0xF5)
        return 4;
    return 0;
}

/* The second byte's range is narrower after four lead bytes: that is what rules out overlong forms,
 * surrogates and code points past U+10FFFF. */
static int second_byte_fits(unsigned char lead, unsigned char second)
{
    unsigned char lowest = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char highest = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return second >= lowest && second <= highest;
}

size_t utf8_character(const char *text)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t count = sequence_bytes(bytes[0]);
    if (count > 1 && !second_byte_fits(bytes[0], bytes[1]))
        return 0;
    for (size_t i = 2; i < count; i++)
        if ((bytes[i] & 0xC0) != 0x80)
            return 0;
    return count;
}

/* Room is reserved once; three bytes are four characters. */
#include "proto/base64.h"

#include <stdint.h>

static char digit(uint32_t bits)
{
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    return DIGITS[bits & 63];
}

void base64_append(struct buffer *to, const void *bytes, size_t count)
{
    const unsigned char *from = bytes;
    size_t length = count / 3 * 4 + (count % 3 ? 4 : 0);
    char *text = count ? buffer_reserve(to, length) : NULL;
    if (!text)
        return;
    for (size_t i = 0; i < count; i += 3, text += 4) {
        size_t left = count - i;
        uint32_t bits = (uint32_t)from[i] << 16 | (left > 1 ? (uint32_t)from[i + 1] << 8 : 0) |
                        (left > 2 ? from[i + 2] : 0);
        text[0] = digit(bits >> 18);
        text[1] = digit(bits >> 12);
        text[2] = left > 1 ? digit(bits >> 6) : '=';
        text[3] = left > 2 ? digit(bits) : '=';
    }
    to->length += length;
}

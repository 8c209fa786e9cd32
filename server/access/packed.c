/* Seven bits a byte, lowest first (LEB128); signs in the lowest bit. */
#include "server/access/packed.h"

#include <string.h>

static const uint64_t MAX_COUNT = (uint64_t)1 << 56;
/* Sums of so many numbers of less than 2^52 units: adding some up cannot overflow. */
static const unsigned __int128 MAX_TWICE = (unsigned __int128)1 << 109;

static void write_number(struct packed *packed, unsigned __int128 value)
{
    unsigned char bytes[19];
    size_t count = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[count++] = (unsigned char)(value | 0x80);
    bytes[count++] = (unsigned char)value;
    buffer_append(packed->out, bytes, count);
}

static unsigned __int128 read_number(struct packed *packed)
{
    unsigned __int128 value = 0;
    for (unsigned shift = 0; shift < 128; shift += 7) {
        if (packed->failed || packed->at == packed->end)
            break;
        const unsigned char byte = *packed->at++;
        if (shift == 126 && byte > 3) /* more than 128 bits */
            break;
        value |= (unsigned __int128)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return value;
    }
    packed->failed = true;
    return 0;
}

void packed_index(struct packed *packed, uint64_t *value, uint64_t limit)
{
    if (packed->out) {
        write_number(packed, *value);
        return;
    }
    const unsigned __int128 number = read_number(packed);
    packed->failed |= number >= limit;
    *value = packed->failed ? 0 : (uint64_t)number;
}

void packed_count(struct packed *packed, uint64_t *value)
{
    packed_index(packed, value, MAX_COUNT);
}

void packed_sum(struct packed *packed, __int128 *value)
{
    if (packed->out) {
        const unsigned __int128 twice = (unsigned __int128)*value << 1;
        write_number(packed, *value < 0 ? ~twice : twice);
        return;
    }
    const unsigned __int128 number = read_number(packed);
    packed->failed |= number >= MAX_TWICE;
    *value = packed->failed ? 0 : (__int128)(number >> 1 ^ -(number & 1));
}

void packed_flag(struct packed *packed, bool *value)
{
    uint64_t number = *value;
    packed_index(packed, &number, 2);
    *value = number;
}

void packed_text(struct packed *packed, char *text, size_t size)
{
    uint64_t length = packed->out ? strlen(text) : 0;
    packed_index(packed, &length, size);
    if (packed->out) {
        buffer_append(packed->out, text, length);
        return;
    }
    packed->failed |= length > (size_t)(packed->end - packed->at);
    length = packed->failed ? 0 : length;
    memcpy(text, packed->at, length);
    text[length] = '\0';
    packed->at += length;
    packed->failed |= memchr(text, '\0', length) != NULL;
}

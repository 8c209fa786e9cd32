/* Grapheme by grapheme, as the `tokenizers` library does, whose results trained models have seen:
 * a short grapheme that begins with any known text is replaced as a whole; else its characters. */
#include "proto/text/charsmap.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "proto/text/unicode.h"

/* Longer graphemes are taken apart (a constant of `tokenizers`). */
enum { WHOLE_GRAPHEME_BYTES = 5 };

/* ---- reading ---- */

static int sextet(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *place = c ? strchr(digits, c) : NULL;
    return place ? (int)(place - digits) : -1;
}

/* Writes at most 3/4 of the text's length; returns how many bytes, or -1. */
static long decode_base64(const char *text, unsigned char *to)
{
    long count = 0;
    uint32_t bits = 0;
    int have = 0;
    for (; *text && *text != '='; text++) {
        int digit = sextet(*text);
        if (digit < 0)
            return -1;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            to[count++] = (unsigned char)(bits >> have);
        }
    }
    return count;
}

static uint32_t little_endian(const unsigned char *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

int charsmap_init(struct charsmap *map, const char *base64, struct error *err)
{
    *map = (struct charsmap){0};
    unsigned char *bytes = malloc(strlen(base64) + 8);
    if (!bytes)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for precompiled_charsmap");
    map->units = (uint32_t *)(void *)bytes;
    long count = decode_base64(base64, bytes);
    uint32_t table = count < 4 ? 0 : little_endian(bytes);
    if (count < 4 || table % 4 != 0 || table == 0 || table > (size_t)count - 4) {
        charsmap_close(map);
        return error_set(err, ERROR_INVALID,
                         "precompiled_charsmap is not the base64 of a table and its texts");
    }
    map->unit_count = table / 4;
    map->texts = (const char *)bytes + 4 + table;
    map->text_bytes = (size_t)count - 4 - table;
    for (size_t i = 0; i < map->unit_count; i++) /* from behind the length to the front */
        map->units[i] = little_endian(bytes + 4 + 4 * i);
    return 0;
}

void charsmap_close(struct charsmap *map)
{
    free(map->units);
    map->units = NULL;
}

/* ---- looking up ---- */

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1 << 9)) >> 6);
}

/* The text for the shortest known beginning of `key`; NULL: nothing known begins it. */
static const char *find(const struct charsmap *map, const char *key, size_t length)
{
    size_t at = offset_of(map->units[0]);
    for (size_t i = 0; i < length && key[i]; i++) {
        unsigned char byte = (unsigned char)key[i];
        at ^= byte;
        if (at >= map->unit_count || (map->units[at] & (1u << 31 | 0xFF)) != byte)
            return NULL;
        uint32_t unit = map->units[at];
        at ^= offset_of(unit);
        if (unit >> 8 & 1) {
            size_t text = at < map->unit_count ? map->units[at] & ~(1u << 31) : SIZE_MAX;
            return text < map->text_bytes ? map->texts + text : NULL;
        }
    }
    return NULL;
}

/* A text of the file may be no UTF-8, or be pointed into: such a one replaces nothing, since all
 * that comes after relies on whole characters. */
static bool replace(const struct charsmap *map, struct buffer *to, const char *text, size_t length)
{
    const char *found = find(map, text, length);
    size_t bytes = found ? strnlen(found, map->text_bytes - (size_t)(found - map->texts)) : 0;
    if (!found || unicode_check(found, bytes) < bytes)
        return false;
    buffer_append(to, found, bytes);
    return true;
}

static const char *grapheme_end(const char *text, const char *end)
{
    utf8proc_int32_t state = 0;
    uint32_t last = unicode_next(&text);
    while (text < end) {
        const char *next = text;
        uint32_t c = unicode_next(&next);
        if (utf8proc_grapheme_break_stateful((int32_t)last, (int32_t)c, &state))
            break;
        last = c;
        text = next;
    }
    return text;
}

void charsmap_append(const struct charsmap *map, struct buffer *to, const char *text, size_t length)
{
    const char *end = text + length;
    while (text < end) {
        const char *stop = grapheme_end(text, end);
        if (stop - text <= WHOLE_GRAPHEME_BYTES && replace(map, to, text, (size_t)(stop - text))) {
            text = stop;
            continue;
        }
        while (text < stop) {
            const char *next = text;
            unicode_next(&next);
            if (!replace(map, to, text, (size_t)(next - text)))
                buffer_append(to, text, (size_t)(next - text));
            text = next;
        }
    }
}

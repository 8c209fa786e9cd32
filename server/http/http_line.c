/* Most lines are plain and whole: they are checked many bytes at a time. Any other is read byte by
 * byte, to go on where the last piece ended, or to say what is wrong. */
#include "server/http/http_line.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool is_control(unsigned char c)
{
    return (c < ' ' && c != '\t') || c == 0x7F;
}

/* Without a branch, so that the compiler takes many bytes in one step. */
static bool has_control(const char *bytes, size_t length)
{
    uint8_t found = 0;
    for (size_t i = 0; i < length; i++) {
        uint8_t c = (uint8_t)bytes[i];
        found |= (uint8_t)((uint8_t)(c < ' ') & (uint8_t)(c != '\t')) | (uint8_t)(c == 0x7F);
    }
    return found;
}

/* Takes a line of which nothing has been seen, if all of it is there and it is text and CRLF. */
static bool take_plain(struct http_line *line, const char *bytes, size_t length)
{
    const char *from = bytes + line->begin;
    const char *end = memchr(from, '\n', length - line->begin);
    if (!end || end == from || end[-1] != '\r' || has_control(from, (size_t)(end - from) - 1))
        return false;
    line->seen = (size_t)(end - bytes) + 1;
    return true;
}

int http_line_read(struct http_line *line, const char *bytes, size_t length, struct error *err)
{
    if (line->seen == line->begin && take_plain(line, bytes, length))
        return 1;
    while (line->seen < length) {
        size_t at = line->seen++;
        unsigned char c = (unsigned char)bytes[at];
        bool after_cr = at > line->begin && bytes[at - 1] == '\r';
        if (after_cr != (c == '\n'))
            return error_set(err, ERROR_INVALID, "a line of the request does not end in CRLF");
        if (c == '\n')
            return 1;
        if (is_control(c) && c != '\r')
            return error_set(err, ERROR_INVALID,
                             "control character 0x%02X in a line of the request", c);
    }
    return 0;
}

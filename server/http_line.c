/* Every byte is looked at once, however many pieces a line arrives in. */
#include "server/http_line.h"

#include <stdbool.h>

int http_line_read(struct http_line *line, const char *bytes, size_t length, struct error *err)
{
    while (line->seen < length) {
        size_t at = line->seen++;
        unsigned char c = (unsigned char)bytes[at];
        bool after_cr = at > line->begin && bytes[at - 1] == '\r';
        if (after_cr != (c == '\n'))
            return error_set(err, ERROR_INVALID, "a line of the request does not end in CRLF");
        if (c == '\n')
            return 1;
        if ((c < ' ' && c != '\t' && c != '\r') || c == 0x7F)
            return error_set(err, ERROR_INVALID,
                             "control character 0x%02X in a line of the request", c);
    }
    return 0;
}

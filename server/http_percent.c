/* Decodes parts of a URL. */
#include "server/http_percent.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool http_percent_decode(const char *from, const char *to, char *text, size_t size)
{
    size_t length = 0;
    while (from < to) {
        char c = *from++;
        if (c == '%') {
            if (to - from < 2 || hex(from[0]) < 0 || hex(from[1]) < 0)
                return false;
            c = (char)(hex(from[0]) << 4 | hex(from[1]));
            from += 2;
        }
        if (c == '\0' || length + 1 >= size)
            return false;
        text[length++] = c;
    }
    text[length] = '\0';
    return true;
}

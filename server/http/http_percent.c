/* A zero byte is refused: it would end a text early. */
#include "server/http/http_percent.h"

#include "core/text.h"

bool http_percent_decode(const char *from, const char *to, char *text, size_t size)
{
    size_t length = 0;
    while (from < to) {
        char c = *from++;
        if (c == '%') {
            if (to - from < 2 || text_hex_digit(from[0]) < 0 || text_hex_digit(from[1]) < 0)
                return false;
            c = (char)(text_hex_digit(from[0]) << 4 | text_hex_digit(from[1]));
            from += 2;
        }
        if (c == '\0' || length + 1 >= size)
            return false;
        text[length++] = c;
    }
    text[length] = '\0';
    return true;
}

/* UTF-8; see text.h. */
#include "clients/c/text.h"

#include <string.h>

size_t text_character(const char *text, uint32_t *code)
{
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *bytes = (const unsigned char *)text;
    *code = bytes[0];
    if (bytes[0] < 0x80)
        return bytes[0] != 0;
    if (bytes[0] < 0xC2 || bytes[0] > 0xF4)
        return 0;
    const size_t count = bytes[0] >= 0xF0 ? 4 : bytes[0] >= 0xE0 ? 3 : 2;
    *code = bytes[0] & (0xFFu >> (count + 1));
    for (size_t i = 1; i < count; i++) {
        if ((bytes[i] & 0xC0) != 0x80)
            return 0;
        *code = *code << 6 | (bytes[i] & 0x3F);
    }
    const bool surrogate = *code >= 0xD800 && *code <= 0xDFFF;
    return *code >= LEAST[count] && *code <= 0x10FFFF && !surrogate ? count : 0;
}

bool text_is_control(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } CONTROLS[] = {
        {0, 0x1F},        {0x7F, 0x9F},     {0x061C, 0x061C},
        {0x200E, 0x200F}, {0x2028, 0x202E}, {0x2066, 0x2069},
    };
    for (size_t i = 0; i < sizeof CONTROLS / sizeof *CONTROLS; i++)
        if (code >= CONTROLS[i].first && code <= CONTROLS[i].last)
            return true;
    return false;
}

void text_keep_whole(char *text)
{
    char *to = text;
    while (*text) {
        uint32_t code;
        const size_t bytes = text_character(text, &code);
        memmove(to, text, bytes);
        to += bytes;
        text += bytes ? bytes : 1;
    }
    *to = '\0';
}

/* A password that holds what should have been encoded ends the host where a port would be. */
static bool is_no_port(const char *start, size_t end)
{
    const size_t colon = *start == '[' ? end : strcspn(start, ":");
    const size_t digits = colon < end ? strspn(start + colon + 1, "0123456789") : 0;
    return colon < end && (digits == 0 || colon + 1 + digits < end);
}

char *text_without_password(const char *url)
{
    char *copy = strdup(url), *start = copy ? strstr(copy, "://") : NULL;
    if (!copy || strncmp(copy, "unix:", 5) == 0)
        return copy;
    start = start ? start + 3 : copy;
    size_t host = 0, end = strcspn(start, "/?#");
    if (is_no_port(start, end))
        end = strlen(start);
    for (size_t i = 0; i < end; i++)
        if (start[i] == '@')
            host = i + 1;
    memmove(start, start + host, strlen(start + host) + 1);
    return copy;
}

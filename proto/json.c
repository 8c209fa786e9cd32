/* Text is copied in runs between the characters that need an escape. */
#include "proto/json.h"

#include <string.h>

#include "core/text.h"
#include "proto/number.h"

/* Numbers per reservation: one bounds check for many numbers, little overshoot at the end. */
enum { NUMBERS_AT_ONCE = 128, INTEGER_BYTES = 11 };

static void append_escape(struct buffer *body, unsigned char c)
{
    static const char plain[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *pair = plain; *pair; pair += 2) {
        if ((unsigned char)pair[0] == c) {
            buffer_append(body, (char[]){'\\', pair[1]}, 2);
            return;
        }
    }
    buffer_format(body, "\\u%04x", c);
}

void json_append_text(struct buffer *body, const char *text, size_t length)
{
    const char *written = text, *end = text + length; /* before `written` all is in the body */
    while (text < end) {
        unsigned char c = (unsigned char)*text;
        size_t bytes = utf8_character_of(text, (size_t)(end - text));
        if (bytes > 0 && c >= 0x20 && c != '"' && c != '\\' && c != 0x7F) {
            text += bytes;
            continue;
        }
        buffer_append(body, written, (size_t)(text - written));
        if (bytes == 0)
            buffer_text(body, UTF8_REPLACEMENT);
        else
            append_escape(body, c);
        written = ++text;
    }
    buffer_append(body, written, (size_t)(text - written));
}

void json_append_escaped(struct buffer *body, const char *text)
{
    json_append_text(body, text, strlen(text));
}

void json_append_string(struct buffer *body, const char *text)
{
    buffer_text(body, "\"");
    json_append_escaped(body, text);
    buffer_text(body, "\"");
}

void json_append_error(struct buffer *body, const char *text)
{
    buffer_text(body, "{\"error\": ");
    json_append_string(body, text);
    buffer_text(body, "}");
}

/* Each number but the first is preceded by its separator. */
void json_append_floats(struct buffer *body, const float *values, size_t count)
{
    for (size_t done = 0; done < count;) {
        size_t part = count - done < NUMBERS_AT_ONCE ? count - done : NUMBERS_AT_ONCE;
        char *start = buffer_reserve(body, part * (NUMBER_FORMAT_BYTES + 1));
        if (!start)
            return;
        char *to = start;
        for (size_t i = done; i < done + part; i++) {
            if (i > 0)
                *to++ = ',';
            to += number_format(to, values[i]);
        }
        body->length += (size_t)(to - start);
        done += part;
    }
}

static char *write_integer(char *to, int32_t value)
{
    char digits[INTEGER_BYTES];
    size_t start = sizeof digits;
    uint32_t magnitude = value < 0 ? 0 - (uint32_t)value : (uint32_t)value;
    do {
        digits[--start] = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude > 0);
    if (value < 0)
        digits[--start] = '-';
    memcpy(to, digits + start, sizeof digits - start);
    return to + sizeof digits - start;
}

void json_append_integers(struct buffer *body, const int32_t *values, size_t count)
{
    for (size_t done = 0; done < count;) {
        size_t part = count - done < NUMBERS_AT_ONCE ? count - done : NUMBERS_AT_ONCE;
        char *start = buffer_reserve(body, part * (INTEGER_BYTES + 1));
        if (!start)
            return;
        char *to = start;
        for (size_t i = done; i < done + part; i++) {
            if (i > 0)
                *to++ = ',';
            to = write_integer(to, values[i]);
        }
        body->length += (size_t)(to - start);
        done += part;
    }
}

void json_append_double(struct buffer *body, double value)
{
    char text[NUMBER_FORMAT_BYTES];
    buffer_append(body, text, number_format_double(text, value));
}

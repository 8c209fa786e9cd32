/* Every length is compared with what is left before it is used, so that no field reaches past its
 * message. Groups, which proto3 does not have, are refused: they nest without a length. */
#include "proto/wire.h"

#include <string.h>

#include "core/text.h"

void wire_reader_init(struct wire_reader *reader, const char *message, size_t length)
{
    if (length == 0)
        message = ""; /* it may be no address */
    *reader = (struct wire_reader){message, message, message + length};
}

struct wire_reader wire_reader_of(const struct wire_reader *outer, const struct wire_field *field)
{
    return (struct wire_reader){outer->message, field->bytes, field->bytes + field->length};
}

static int malformed(const struct wire_reader *reader, const char *at, const char *what,
                     struct error *err)
{
    return error_set(err, ERROR_INVALID, "malformed message at byte %zu: %s",
                     (size_t)(at - reader->message), what);
}

static int read_varint(struct wire_reader *reader, uint64_t *value, struct error *err)
{
    const char *begin = reader->cursor;
    *value = 0;
    for (unsigned shift = 0; reader->cursor < reader->end; shift += 7) {
        uint64_t byte = (unsigned char)*reader->cursor++;
        if (shift == 63 && byte > 1)
            return malformed(reader, begin, "the number has more than 64 bits", err);
        *value |= (byte & 0x7F) << shift;
        if (byte < 0x80)
            return 0;
    }
    return malformed(reader, begin, "the message ends inside the number that begins here", err);
}

int wire_next_varint(struct wire_reader *reader, uint64_t *value, struct error *err)
{
    if (reader->cursor == reader->end)
        return 0;
    return read_varint(reader, value, err) == 0 ? 1 : -1;
}

/* A number of `size` bytes, lowest first. */
static int read_fixed(struct wire_reader *reader, size_t size, uint64_t *value, struct error *err)
{
    if ((size_t)(reader->end - reader->cursor) < size)
        return malformed(reader, reader->cursor,
                         "the message ends inside the number that begins here", err);
    for (size_t i = 0; i < size; i++)
        *value |= (uint64_t)(unsigned char)reader->cursor[i] << 8 * i;
    reader->cursor += size;
    return 0;
}

static int read_bytes(struct wire_reader *reader, struct wire_field *field, struct error *err)
{
    const char *begin = reader->cursor;
    uint64_t length;
    if (read_varint(reader, &length, err) != 0)
        return -1;
    if (length > (size_t)(reader->end - reader->cursor))
        return malformed(reader, begin, "the field is longer than its message", err);
    field->bytes = reader->cursor;
    field->length = (size_t)length;
    reader->cursor += length;
    return 0;
}

int wire_next(struct wire_reader *reader, struct wire_field *field, struct error *err)
{
    const char *begin = reader->cursor;
    uint64_t key;
    int result = -1;
    *field = (struct wire_field){.bytes = ""};
    if (reader->cursor == reader->end)
        return 0;
    if (read_varint(reader, &key, err) != 0)
        return -1;
    if (key >> 3 == 0 || key >> 3 > 0x1FFFFFFF)
        return malformed(reader, begin, "no field has this number", err);
    field->number = (uint32_t)(key >> 3);
    field->type = (enum wire_type)(key & 7);
    switch (field->type) {
    case WIRE_VARINT:
        result = read_varint(reader, &field->value, err);
        break;
    case WIRE_FIXED64:
        result = read_fixed(reader, 8, &field->value, err);
        break;
    case WIRE_FIXED32:
        result = read_fixed(reader, 4, &field->value, err);
        break;
    case WIRE_BYTES:
        result = read_bytes(reader, field, err);
        break;
    default:
        return malformed(reader, begin, "this type of field does not exist in proto3", err);
    }
    return result == 0 ? 1 : -1;
}

int wire_check_type(const struct wire_field *field, enum wire_type type, const char *what,
                    struct error *err)
{
    if (field->type == type)
        return 0;
    return error_set(err, ERROR_INVALID, "%s has wire type %d, expected %d", what, (int)field->type,
                     (int)type);
}

int wire_check_string(const struct wire_field *field, const char *what, struct error *err)
{
    if (wire_check_type(field, WIRE_BYTES, what, err) != 0)
        return -1;
    for (size_t at = 0, bytes; at < field->length; at += bytes) {
        bytes = field->bytes[at] ? utf8_character_of(field->bytes + at, field->length - at) : 0;
        if (bytes == 0)
            return error_set(err, ERROR_INVALID, "%s: byte %zu is not text in UTF-8", what, at);
    }
    return 0;
}

/* ---- writing ---- */

void wire_append_varint(struct buffer *message, uint64_t value)
{
    char bytes[WIRE_VARINT_BYTES];
    size_t count = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[count++] = (char)(value | 0x80);
    bytes[count++] = (char)value;
    buffer_append(message, bytes, count);
}

static void append_key(struct buffer *message, uint32_t field, enum wire_type type)
{
    wire_append_varint(message, (uint64_t)field << 3 | type);
}

void wire_append_number(struct buffer *message, uint32_t field, uint64_t value)
{
    append_key(message, field, WIRE_VARINT);
    wire_append_varint(message, value);
}

void wire_append_head(struct buffer *message, uint32_t field, size_t length)
{
    append_key(message, field, WIRE_BYTES);
    wire_append_varint(message, length);
}

void wire_append_bytes(struct buffer *message, uint32_t field, const void *bytes, size_t length)
{
    wire_append_head(message, field, length);
    buffer_append(message, bytes, length);
}

void wire_append_text(struct buffer *message, uint32_t field, const char *text)
{
    wire_append_bytes(message, field, text, strlen(text));
}

/* The wire format of Protocol Buffers: one field after the other, without a schema and without
 * memory of its own. Fields point into the message, which is borrowed. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "proto/buffer.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* Room for a varint: ten groups of seven bits. */
enum { WIRE_VARINT_BYTES = 10 };

struct wire_field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;    /* of all types but WIRE_BYTES */
    const char *bytes; /* of WIRE_BYTES: a string, a message, or packed numbers; else "" */
    size_t length;
};

/* ---- reading ---- */

struct wire_reader {
    const char *message; /* the outermost; messages count bytes from here */
    const char *cursor, *end;
};

void wire_reader_init(struct wire_reader *reader, const char *message, size_t length);

/* A reader of the message that a field of `outer` holds. */
struct wire_reader wire_reader_of(const struct wire_reader *outer, const struct wire_field *field);

/* Reads the next field: 1, or 0 at the end, or -1 with an error. */
MUST_CHECK int wire_next(struct wire_reader *reader, struct wire_field *field, struct error *err);

/* Reads a bare varint, of packed numbers: 1, or 0 at the end, or -1 with an error. */
MUST_CHECK int wire_next_varint(struct wire_reader *reader, uint64_t *value, struct error *err);

/* Whether the field is a string as proto3 has them, in UTF-8, and without NULs, which nothing here
 * takes. -1 with an error that names `what` if not. */
MUST_CHECK int wire_check_string(const struct wire_field *field, const char *what,
                                 struct error *err);

/* -1 with an error that names `what` if the field is not of this type. */
MUST_CHECK int wire_check_type(const struct wire_field *field, enum wire_type type,
                               const char *what, struct error *err);

/* ---- writing ---- */

void wire_append_varint(struct buffer *message, uint64_t value);
void wire_append_number(struct buffer *message, uint32_t field, uint64_t value);
void wire_append_bytes(struct buffer *message, uint32_t field, const void *bytes, size_t length);
void wire_append_text(struct buffer *message, uint32_t field, const char *text);

/* The beginning of a field whose `length` bytes the caller appends. */
void wire_append_head(struct buffer *message, uint32_t field, size_t length);

#endif

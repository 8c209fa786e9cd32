/* A repeated field may come packed or not, in any number of pieces. What a client sends is one
 * packed piece, which for numbers of fixed size is the tensor itself.
 *
 * Varints and words take one pass that counts and checks, and one that writes, so that memory is
 * asked for once, and never for more elements than there are. */
#include "proto/grpc_contents.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"

/* Where a datatype's elements are, and what they are read as. */
struct contents_kind {
    uint32_t field;
    const char *name;
    enum wire_type type; /* of one element that is not packed */
    enum datatype as;
    size_t bytes; /* of an element of `as` */
};

static const struct contents_kind *kind_of(enum datatype datatype)
{
    static const struct contents_kind INT = {2, "int_contents", WIRE_VARINT, DATATYPE_INT32, 4},
                                      INT64 = {3, "int64_contents", WIRE_VARINT, DATATYPE_INT64, 8},
                                      UINT = {4, "uint_contents", WIRE_VARINT, DATATYPE_UINT32, 4},
                                      UINT64 = {5, "uint64_contents", WIRE_VARINT, DATATYPE_UINT64,
                                                8},
                                      FP32 = {6, "fp32_contents", WIRE_FIXED32, DATATYPE_FP32, 4},
                                      FP64 = {7, "fp64_contents", WIRE_FIXED64, DATATYPE_FP64, 8},
                                      WORDS = {8, "bytes_contents", WIRE_BYTES, DATATYPE_BYTES, 0};
    static const struct contents_kind *const KINDS[DATATYPE_COUNT] = {
        [DATATYPE_INT8] = &INT,      [DATATYPE_INT16] = &INT,   [DATATYPE_INT32] = &INT,
        [DATATYPE_INT64] = &INT64,   [DATATYPE_UINT8] = &UINT,  [DATATYPE_UINT16] = &UINT,
        [DATATYPE_UINT32] = &UINT,   [DATATYPE_FP32] = &FP32,   [DATATYPE_FP64] = &FP64,
        [DATATYPE_UINT64] = &UINT64, [DATATYPE_BYTES] = &WORDS,
    };
    return KINDS[datatype];
}

/* Contents while they are read: counted first, then written to `out`. */
struct contents {
    const struct contents_kind *kind;
    enum datatype declared;
    size_t limit;
    size_t count, bytes; /* of elements so far */
    char *out;           /* NULL while counting */
    const char *piece;   /* the only one, if it is packed and of fixed size */
    size_t pieces;
    struct error *err;
};

/* Counts, or writes, elements whose bytes are given. */
static int add(struct contents *contents, size_t count, const void *bytes, size_t length)
{
    if (contents->out)
        memcpy(contents->out + contents->bytes, bytes, length);
    contents->bytes += length;
    contents->count += count;
    if (contents->count <= contents->limit)
        return 0;
    return error_set(contents->err, ERROR_TOO_LARGE,
                     "%s has more than the %zu elements of the largest request",
                     contents->kind->name, contents->limit);
}

static double number_of(const struct contents *contents, uint64_t value)
{
    enum datatype as = contents->kind->as;
    return as == DATATYPE_INT32 || as == DATATYPE_INT64 ? (double)(int64_t)value : (double)value;
}

/* Integers of eight and sixteen bits have no field of their own, so their range is checked here. */
static int add_integer(struct contents *contents, uint64_t value)
{
    if (contents->kind->bytes == 4 &&
        !datatype_holds(contents->declared, number_of(contents, value)))
        return error_set(contents->err, ERROR_INVALID, "%s[%zu] is %.0f, which is no %s",
                         contents->kind->name, contents->count, number_of(contents, value),
                         datatype_name(contents->declared));
    return add(contents, 1, &value, contents->kind->bytes); /* little-endian: the low bytes */
}

static int add_word(struct contents *contents, const struct wire_field *field)
{
    uint32_t length = (uint32_t)field->length;
    if (field->length > UINT32_MAX)
        return error_set(contents->err, ERROR_TOO_LARGE, "%s[%zu] is too long",
                         contents->kind->name, contents->count);
    (void)!add(contents, 0, &length, sizeof length); /* nothing is counted */
    return add(contents, 1, field->bytes, field->length);
}

static int add_packed(struct contents *contents, const struct wire_reader *outer,
                      const struct wire_field *field)
{
    const struct contents_kind *kind = contents->kind;
    struct wire_reader packed = wire_reader_of(outer, field);
    uint64_t value;
    int result = 0, more;
    while (kind->type == WIRE_VARINT && result == 0) {
        more = wire_next_varint(&packed, &value, contents->err);
        if (more <= 0)
            return more;
        result = add_integer(contents, value);
    }
    if (kind->type == WIRE_VARINT)
        return result;
    if (field->length % kind->bytes != 0)
        return error_set(contents->err, ERROR_INVALID, "%s has %zu byte%s, expected %zu for each",
                         kind->name, field->length, text_s(field->length), kind->bytes);
    contents->piece = field->bytes;
    return add(contents, field->length / kind->bytes, field->bytes, field->length);
}

static int add_field(struct contents *contents, const struct wire_reader *outer,
                     const struct wire_field *field)
{
    const struct contents_kind *kind = contents->kind;
    contents->pieces++;
    if (kind->type == WIRE_BYTES)
        return wire_check_type(field, WIRE_BYTES, kind->name, contents->err) == 0
                   ? add_word(contents, field)
                   : -1;
    if (field->type == WIRE_BYTES)
        return add_packed(contents, outer, field);
    if (wire_check_type(field, kind->type, kind->name, contents->err) != 0)
        return -1;
    contents->piece = NULL;
    return kind->type == WIRE_VARINT ? add_integer(contents, field->value)
                                     : add(contents, 1, &field->value, kind->bytes);
}

/* One pass over the contents. */
static int pass(struct contents *contents, struct wire_reader reader)
{
    struct wire_field field;
    int more;
    contents->count = contents->bytes = contents->pieces = 0;
    contents->piece = NULL;
    while ((more = wire_next(&reader, &field, contents->err)) == 1) {
        if (field.number != contents->kind->field && field.number <= 8)
            return error_set(contents->err, ERROR_INVALID,
                             "datatype %s has its elements in %s, and this has field %u",
                             datatype_name(contents->declared), contents->kind->name, field.number);
        if (field.number <= 8 && add_field(contents, &reader, &field) != 0)
            return -1;
    }
    return more;
}

int grpc_read_contents(struct wire_reader reader, enum datatype *datatype, size_t limit,
                       struct oip_tensor *tensor, char **owned, struct error *err)
{
    struct contents contents = {
        .kind = kind_of(*datatype), .declared = *datatype, .limit = limit, .err = err};
    *owned = NULL;
    if (!contents.kind)
        return error_set(err, ERROR_INVALID, "%s cannot be in contents: send it raw",
                         datatype_name(*datatype));
    if (pass(&contents, reader) != 0)
        return -1;
    *datatype = contents.kind->as;
    *tensor = (struct oip_tensor){contents.piece, contents.bytes};
    if (contents.piece && contents.pieces == 1)
        return 0;
    *owned = contents.out = malloc(contents.bytes + 1);
    if (!contents.out)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for %zu element%s", contents.count,
                         text_s(contents.count));
    (void)!pass(&contents, reader); /* as before */
    tensor->bytes = *owned;
    return 0;
}

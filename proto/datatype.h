/* The datatypes of the Open Inference Protocol, and their conversion to the engine's numbers. */
#ifndef PROTO_DATATYPE_H
#define PROTO_DATATYPE_H

#include <stdbool.h>
#include <stddef.h>

/* name, bytes per element on the wire (0: variable) */
#define DATATYPES(X)                                                                               \
    X(BOOL, 1)                                                                                     \
    X(UINT8, 1)                                                                                    \
    X(UINT16, 2)                                                                                   \
    X(UINT32, 4)                                                                                   \
    X(UINT64, 8)                                                                                   \
    X(INT8, 1)                                                                                     \
    X(INT16, 2)                                                                                    \
    X(INT32, 4)                                                                                    \
    X(INT64, 8)                                                                                    \
    X(FP16, 2)                                                                                     \
    X(BF16, 2)                                                                                     \
    X(FP32, 4)                                                                                     \
    X(FP64, 8)                                                                                     \
    X(BYTES, 0)

enum datatype {
#define DATATYPE_ENUM(name, bytes) DATATYPE_##name,
    DATATYPES(DATATYPE_ENUM)
#undef DATATYPE_ENUM
        DATATYPE_COUNT
};

/* DATATYPE_COUNT when the name is not one of the protocol's. */
enum datatype datatype_from_name(const char *name);
const char *datatype_name(enum datatype datatype);
size_t datatype_bytes(enum datatype datatype);

/* Whether an input may have this type: all types of numbers, but not BOOL or BYTES. */
bool datatype_is_numeric(enum datatype datatype);

/* Whether `value`, as written in JSON, is a value of this type: integers in range for the integer
 * types, finite values in range for the floating-point types. */
bool datatype_holds(enum datatype datatype, double value);

/* One little-endian element at any alignment. Integers beyond 2^53 are rounded. */
double datatype_to_f64(enum datatype datatype, const void *bytes);

/* Converts `count` little-endian elements at any alignment to f32, rounding to nearest. Returns the
 * number of leading elements that are finite; if it is less than `count`, the next one is NaN or
 * infinite, which no input may be. */
size_t datatype_to_f32(enum datatype datatype, const void *bytes, size_t count, float *values);

#endif

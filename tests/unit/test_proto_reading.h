/* A request whose data is at the end of a page, and its infer_reader. */
#ifndef TEST_PROTO_READING_H
#define TEST_PROTO_READING_H

#include "test_proto_support.h"

/* A request for digits_model, whose only input has all of `copy` as data. */
struct reading {
    struct infer_input input;
    struct infer_request request;
    struct infer_reader reader;
    struct guarded copy;
};

static inline void reading_init(struct reading *reading, const void *data, size_t length,
                                size_t rows, bool binary, enum datatype datatype)
{
    reading->copy = guarded_copy(data, length);
    reading->input = (struct infer_input){
        .where = "data",
        .data = reading->copy.text,
        .length = length,
        .binary = binary,
        .datatype = datatype,
    };
    reading->request = (struct infer_request){
        .signature = &digits_model,
        .body = reading->copy.text,
        .rows = rows,
        .inputs = &reading->input,
    };
    infer_reader_init(&reading->reader, &reading->request, 0);
}

static inline void reading_close(struct reading *reading)
{
    guarded_free(&reading->copy);
}

#endif

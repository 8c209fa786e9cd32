/* Shared by fuzz_oip and fuzz_v1: reads every row of a decoded request, encodes a result, and
 * checks both with jansson, which parses the numbers only here. */
#ifndef FUZZ_EXCHANGE_H
#define FUZZ_EXCHANGE_H

#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_proto_models.h"

enum { EXCHANGE_MAX_NUMBERS = 8 * 6 };

static inline void require(int condition)
{
    if (!condition)
        abort();
}

/* Reads all rows of one input: first one row, then the others. Returns 0 with the values, or -1. */
static inline int read_input(const struct infer_request *request, size_t input,
                             float values[EXCHANGE_MAX_NUMBERS])
{
    size_t elements = request->signature->inputs[input].elements;
    struct infer_reader reader;
    struct error err = ERROR_INIT;
    infer_reader_init(&reader, request, input);
    int result = infer_reader_rows(&reader, 1, values, &err);
    if (result == 0 && request->rows > 1)
        result = infer_reader_rows(&reader, request->rows - 1, values + elements, &err);
    require((result == 0) == (err.code == ERROR_NONE));
    for (size_t i = 0; result == 0 && i < request->rows * elements; i++)
        require(isfinite(values[i]));
    return result;
}

static inline size_t compare_numbers(const json_t *list, const float *values, size_t at,
                                     size_t count)
{
    size_t i;
    json_t *entry;
    if (json_is_number(list)) {
        require(at < count && (float)json_number_value(list) == values[at]);
        return at + 1;
    }
    require(json_is_array(list));
    json_array_foreach(list, i, entry) at = compare_numbers(entry, values, at, count);
    return at;
}

static inline json_t *parse_like_us(const char *text, size_t length)
{
    return json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
}

/* Checks that jansson, too, reads a JSON input as these numbers in this order. */
static inline void check_numbers(const struct infer_request *request, size_t input,
                                 const float *values)
{
    const struct infer_input *source = &request->inputs[input];
    if (source->binary)
        return;
    size_t count = request->rows * request->signature->inputs[input].elements;
    json_t *list = parse_like_us(source->data, source->length);
    require(compare_numbers(list, values, 0, count) == count);
    json_decref(list);
}

static inline void check_error(const struct error *err)
{
    require(err->code == ERROR_INVALID || err->code == ERROR_TOO_LARGE);
    require(err->text[0] != '\0');
}

#endif

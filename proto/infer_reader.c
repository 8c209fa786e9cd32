/* Streams one input's numbers out of the body, binary or JSON, into rows of f32, or of int32_t
 * where the input takes categories.
 *
 * JSON lists are walked with an explicit stack. Between calls the cursor is right after the last
 * child of the innermost open list (or after its bracket), so a call may end after any row, even in
 * the middle of a flat list of many rows. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/parse_json.h"
#include "core/text.h"
#include "proto/envelope.h"
#include "proto/infer_category.h"
#include "proto/number.h"

enum {
    /* Room for "data[12][3]..." with every axis; longer ones are cut. */
    PLACE_BYTES = 160,
    EXCERPT_BYTES = 24,
    /* Numbers scanned before they are checked and rounded: few enough to stay in the first-level
     * cache. */
    CHUNK = 256,
    /* Integers beyond doubles are taken one by one: where one was, so few are scanned in vain. */
    LARGE_CHUNK = 8,
    /* jansson's for one string, and more than any word takes. */
    MAX_WORD_HEAP = 1 << 16,
};

void infer_reader_init(struct infer_reader *reader, const struct infer_request *request,
                       size_t input)
{
    const struct signature_tensor *tensor = &request->signature->inputs[input];
    assert(tensor->rank < INFER_MAX_AXES);
    *reader = (struct infer_reader){
        .request = request,
        .input = &request->inputs[input],
        .tensor = tensor,
        .cursor = request->inputs[input].data,
        .end = request->inputs[input].data + request->inputs[input].length,
        .elements_left = request->rows * tensor->elements,
    };
}

static const char *base_of(const struct infer_reader *reader)
{
    return reader->input->base ? reader->input->base : reader->request->body;
}

/* ---- where and what, for messages ---- */

/* Writes "instances[3][0]": the list at `depth` and, if `child` is set, the index of its current
 * child. */
static void describe_place(const struct infer_reader *reader, size_t depth, bool child,
                           char text[PLACE_BYTES])
{
    int used = snprintf(text, PLACE_BYTES, "%s", reader->input->where);
    for (size_t i = 0; i < depth + child && used < PLACE_BYTES; i++) {
        /* Enclosing lists are already counted as children; the current child is not. */
        size_t index = reader->open[i].children - (i < depth);
        used += snprintf(text + used, PLACE_BYTES - (size_t)used, "[%zu]", index);
    }
}

/* Writes "[1,28,28]": the shape of the list at `depth`, rows included for the outermost. */
static const char *describe_shape(const struct infer_reader *reader, size_t depth,
                                  char text[SHAPE_TEXT_BYTES])
{
    size_t dims[INFER_MAX_AXES] = {reader->request->rows};
    for (size_t axis = 0; axis < reader->tensor->rank; axis++)
        dims[1 + axis] = reader->tensor->dims[axis];
    return text_of_shape(text, NULL, dims + depth, reader->tensor->rank + 1 - depth, ",");
}

/* Children the list at `depth` must have: one per entry of its axis, or all its numbers. */
static size_t expected_children(const struct infer_reader *reader, size_t depth)
{
    const struct signature_tensor *tensor = reader->tensor;
    size_t children = depth == 0 ? reader->request->rows : tensor->dims[depth - 1];
    if (!reader->open[depth].lists)
        for (size_t axis = depth; axis < tensor->rank; axis++)
            children *= tensor->dims[axis];
    return children;
}

static int wrong_count(const struct infer_reader *reader, size_t depth, struct error *err)
{
    char place[PLACE_BYTES], shape[SHAPE_TEXT_BYTES];
    size_t count = envelope_list_entries(reader->open[depth].start, reader->end);
    describe_place(reader, depth, false, place);
    return error_set(err, ERROR_INVALID, "input '%s': %s has %zu %s%s, expected %zu (shape %s)",
                     reader->tensor->name, place, count,
                     reader->open[depth].lists ? "list" : "number", count == 1 ? "" : "s",
                     expected_children(reader, depth), describe_shape(reader, depth, shape));
}

/* Length of the offending text: one delimiter, or everything before the next one, cut if it is
 * long. */
static int excerpt_bytes(const struct infer_reader *reader)
{
    static const char delimiters[] = ",[]{} \t\r\n"; /* and the NUL, which would end the message */
    int bytes = 0;
    while (bytes < EXCERPT_BYTES && reader->cursor + bytes < reader->end &&
           !memchr(delimiters, reader->cursor[bytes], sizeof delimiters))
        bytes++;
    return bytes > 0 ? bytes : reader->cursor < reader->end;
}

static int unexpected(const struct infer_reader *reader, const char *expected, struct error *err)
{
    char place[PLACE_BYTES], byte[32] = "";
    describe_place(reader, reader->depth - 1, true, place);
    if (!reader->input->base)
        snprintf(byte, sizeof byte, " at byte %zu",
                 (size_t)(reader->cursor - reader->request->body));
    return error_set(err, ERROR_INVALID, "input '%s': %s is '%.*s'%s, expected %s",
                     reader->tensor->name, place, excerpt_bytes(reader), reader->cursor, byte,
                     expected);
}

/* ---- JSON ---- */

static void skip_space(struct infer_reader *reader)
{
    const char *c = reader->cursor;
    while (c < reader->end && text_is_space(*c))
        c++;
    reader->cursor = c;
}

static bool at(const struct infer_reader *reader, char c)
{
    return reader->cursor < reader->end && *reader->cursor == c;
}

/* Opens the list at the cursor; its first child decides whether it holds lists or numbers. */
static int open_list(struct infer_reader *reader, struct error *err)
{
    const char *start = reader->cursor++;
    skip_space(reader);
    bool lists = at(reader, '[');
    reader->open[reader->depth++] = (struct infer_list){.start = start, .lists = lists};
    if (lists && reader->depth > reader->tensor->rank)
        return unexpected(reader, "a number: the lists are nested too deeply", err);
    return 0;
}

/* Moves to the next number: closes the lists that are full, opens those that come next. */
static int next_number(struct infer_reader *reader, struct error *err)
{
    if (reader->depth == 0 && open_list(reader, err) != 0)
        return -1;
    for (;;) {
        struct infer_list *list = &reader->open[reader->depth - 1];
        skip_space(reader);
        if (list->children == expected_children(reader, reader->depth - 1)) {
            if (!at(reader, ']'))
                return wrong_count(reader, reader->depth - 1, err);
            reader->cursor++;
            reader->depth--;
            continue;
        }
        if (at(reader, ']'))
            return wrong_count(reader, reader->depth - 1, err);
        if (list->children > 0) {
            if (!at(reader, ','))
                return unexpected(reader, "a comma", err);
            reader->cursor++;
            skip_space(reader);
        }
        if (!list->lists)
            return 0;
        if (!at(reader, '['))
            return unexpected(reader, "a list", err);
        list->children++;
        if (open_list(reader, err) != 0)
            return -1;
    }
}

/* The model computes in FP32: FP64 input is accepted, but only within FP32's range. */
static enum datatype range_of(const struct infer_reader *reader)
{
    enum datatype datatype = reader->input->datatype;
    return datatype == DATATYPE_FP64 ? DATATYPE_FP32 : datatype;
}

static int bad_number(const struct infer_reader *reader, struct error *err)
{
    char expected[64] = "a string";
    if (reader->input->datatype != DATATYPE_BYTES)
        snprintf(expected, sizeof expected, "a number that %s can hold",
                 datatype_name(range_of(reader)));
    return unexpected(reader, expected, err);
}

/* Whether a double of this size no longer distinguishes an integer from its neighbours or from a
 * fraction. */
static bool is_beyond_doubles(enum datatype range, double number)
{
    return (range == DATATYPE_INT64 || range == DATATYPE_UINT64) && fabs(number) >= 0x1p53;
}

/* Rounds numbers to f32. Returns how many leading ones the datatype holds. */
static size_t round_numbers(enum datatype range, const double *numbers, size_t count, float *values)
{
    int32_t largest = 0;
    for (size_t i = 0; i < count; i++)
        values[i] = (float)numbers[i];
    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= INT32_MAX;
        largest = largest > bits ? largest : bits;
    }
    if (range == DATATYPE_FP32 && largest < 0x7F800000)
        return count;
    size_t held = 0;
    while (held < count && datatype_holds(range, numbers[held]) &&
           !is_beyond_doubles(range, numbers[held]))
        held++;
    return held;
}

/* Reads the one integer at the cursor from its digits, whatever its size. Returns 1, or 0 if there
 * is no integer that the datatype holds. */
static size_t read_large_integer(struct infer_reader *reader, float *value)
{
    enum datatype range = range_of(reader);
    bool negative = at(reader, '-');
    uint64_t magnitude = 0;
    const char *c = reader->cursor + negative;
    double number;
    if (number_scan(reader->cursor, reader->end, &number) == NULL)
        return 0;
    for (; c < reader->end && *c >= '0' && *c <= '9'; c++)
        if (__builtin_mul_overflow(magnitude, 10, &magnitude) ||
            __builtin_add_overflow(magnitude, (uint64_t)(*c - '0'), &magnitude))
            return 0;
    bool whole = c == reader->end || text_is_space(*c) || *c == ',' || *c == ']';
    uint64_t most = range == DATATYPE_UINT64 ? UINT64_MAX : (uint64_t)INT64_MAX + negative;
    if (!whole || magnitude > most || (negative && range == DATATYPE_UINT64))
        return 0;
    *value = negative ? -(float)magnitude : (float)magnitude;
    reader->cursor = c;
    return 1;
}

/* ---- categories ---- */

/* Returns how many leading numbers are categories. */
static size_t store_categories(const struct infer_reader *reader, const double *numbers,
                               size_t count, int32_t *categories, struct error *err)
{
    size_t stored = 0;
    while (stored < count && datatype_holds(range_of(reader), numbers[stored]) &&
           infer_store_category(reader, stored, numbers[stored], &categories[stored], err) == 0)
        stored++;
    return stored;
}

/* ---- numbers ---- */

/* Reads up to `count` numbers, the first at the cursor. Leaves the cursor after the last valid one;
 * returns how many are valid. */
static size_t read_chunk(struct infer_reader *reader, size_t count, void *values, struct error *err)
{
    double numbers[CHUNK];
    const char *start = reader->cursor;
    const size_t most = reader->beyond_doubles ? LARGE_CHUNK : CHUNK;
    if (count > most)
        count = most;
    size_t scanned =
        number_scan_list(&reader->cursor, base_of(reader), reader->end, numbers, count);
    size_t held = reader->tensor->categories
                      ? store_categories(reader, numbers, scanned, values, err)
                      : round_numbers(range_of(reader), numbers, scanned, values);
    if (held < scanned) {
        reader->cursor = start;
        number_scan_list(&reader->cursor, base_of(reader), reader->end, numbers, held);
    }
    if (held == 0 && scanned > 0 && is_beyond_doubles(range_of(reader), numbers[0]) &&
        !reader->tensor->categories) {
        reader->beyond_doubles = true;
        held = read_large_integer(reader, values);
    }
    reader->elements_left -= held;
    return held;
}

/* ---- words and null ---- */

/* Reads the string at the cursor as a word. */
static int read_word(struct infer_reader *reader, int32_t *category, struct error *err)
{
    const char *after = json_string_end(reader->cursor, reader->end);
    struct json_fault fault;
    json_t *string = parse_json(reader->cursor, (size_t)(after - reader->cursor),
                                JSON_DECODE_ANY | JSON_ALLOW_NUL, MAX_WORD_HEAP, &fault);
    if (!string && fault.kind == JSON_FAULT_NO_MEMORY)
        return error_set(err, ERROR_UNAVAILABLE, "%s", fault.reason);
    if (!string)
        return unexpected(reader, "a string", err);
    int result = infer_store_word(reader, 0, json_string_value(string), json_string_length(string),
                                  category, err);
    json_decref(string);
    reader->cursor = after;
    return result;
}

/* Reads the value at the cursor that is no number. Returns 1; 0 if there is none, or with an error.
 */
static size_t read_other(struct infer_reader *reader, void *value, struct error *err)
{
    static const char null[] = "null";
    size_t length = sizeof null - 1;
    if (at(reader, '"') && reader->tensor->words) {
        if (read_word(reader, value, err) != 0)
            return 0;
    } else if ((size_t)(reader->end - reader->cursor) > length &&
               memcmp(reader->cursor, null, length) == 0) {
        if (infer_store_missing(reader, value, err) != 0)
            return 0;
        reader->cursor += length;
    } else {
        return 0;
    }
    reader->elements_left--;
    return 1;
}

/* The address of element `index`: f32 and int32_t have the same size. */
static void *element_of(void *values, size_t index)
{
    return (float *)values + index;
}

/* Reads values, the first at the cursor, until the list ends or `count` are read. Returns how
 * many; 0 on error. */
static size_t read_numbers(struct infer_reader *reader, size_t count, void *values,
                           struct error *err)
{
    struct infer_list *list = &reader->open[reader->depth - 1];
    size_t room = expected_children(reader, reader->depth - 1) - list->children;
    size_t wanted = count < room ? count : room;
    for (size_t done = 0;;) {
        size_t read = read_chunk(reader, wanted - done, element_of(values, done), err);
        read = read ? read : read_other(reader, element_of(values, done), err);
        if (read == 0) {
            bad_number(reader, err); /* unless it has been reported */
            return 0;
        }
        list->children += read;
        done += read;
        if (done == wanted)
            return done;
        skip_space(reader);
        if (!at(reader, ','))
            return done; /* next_number() has reported it */
        reader->cursor++;
        skip_space(reader);
    }
}

/* After the last number only the closing brackets may follow. */
static int finish_lists(struct infer_reader *reader, struct error *err)
{
    while (reader->depth > 0) {
        skip_space(reader);
        if (!at(reader, ']'))
            return wrong_count(reader, reader->depth - 1, err);
        reader->cursor++;
        reader->depth--;
    }
    return 0;
}

static int read_json(struct infer_reader *reader, size_t count, void *values, struct error *err)
{
    while (count > 0) {
        if (next_number(reader, err) != 0)
            return -1;
        size_t read = read_numbers(reader, count, values, err);
        if (read == 0)
            return -1;
        values = element_of(values, read);
        count -= read;
    }
    return reader->elements_left > 0 ? 0 : finish_lists(reader, err);
}

/* ---- binary ---- */

static size_t count_all(const struct infer_reader *reader)
{
    return reader->request->rows * reader->tensor->elements;
}

static size_t count_read(const struct infer_reader *reader)
{
    return count_all(reader) - reader->elements_left;
}

/* Every word has its length, a little-endian uint32, in front. */
static int read_binary_words(struct infer_reader *reader, size_t count, int32_t *categories,
                             struct error *err)
{
    for (size_t i = 0; i < count; i++, reader->elements_left--) {
        size_t left = (size_t)(reader->end - reader->cursor), length = SIZE_MAX;
        const unsigned char *bytes = (const unsigned char *)reader->cursor;
        if (left >= 4)
            length =
                bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
        if (left < 4 || left - 4 < length)
            return error_set(err, ERROR_INVALID,
                             "input '%s': the binary data ends inside word %zu of %zu",
                             reader->tensor->name, count_read(reader), count_all(reader));
        if (infer_store_word(reader, 0, reader->cursor + 4, length, &categories[i], err) != 0)
            return -1;
        reader->cursor += 4 + length;
    }
    if (reader->elements_left > 0 || reader->cursor == reader->end)
        return 0;
    return error_set(err, ERROR_INVALID, "input '%s': %zu byte%s too many for %zu word%s",
                     reader->tensor->name, (size_t)(reader->end - reader->cursor),
                     text_s((size_t)(reader->end - reader->cursor)), count_all(reader),
                     text_s(count_all(reader)));
}

static int read_binary_categories(struct infer_reader *reader, size_t count, int32_t *categories,
                                  struct error *err)
{
    enum datatype datatype = reader->input->datatype;
    size_t bytes = datatype_bytes(datatype);
    for (size_t i = 0; i < count; i++) {
        double number = datatype_to_f64(datatype, reader->cursor + i * bytes);
        if (infer_store_category(reader, i, number, &categories[i], err) != 0)
            return -1;
    }
    reader->cursor += count * bytes;
    reader->elements_left -= count;
    return 0;
}

/* Returns how many leading elements FP32 can hold. Where NaN and infinities are welcome, only a
 * finite FP64 beyond FP32's range ends them. */
static size_t read_binary_numbers(const struct infer_reader *reader, size_t count, float *values)
{
    enum datatype datatype = reader->input->datatype;
    size_t bytes = datatype_bytes(datatype);
    size_t held = datatype_to_f32(datatype, reader->cursor, count, values);
    while (reader->request->non_finite && held < count &&
           (isfinite(values[held]) ||
            !isfinite(datatype_to_f64(datatype, reader->cursor + held * bytes))))
        held++;
    return held;
}

static int read_binary(struct infer_reader *reader, size_t count, void *values, struct error *err)
{
    enum datatype datatype = reader->input->datatype;
    if (datatype == DATATYPE_BYTES)
        return read_binary_words(reader, count, values, err);
    if (reader->tensor->categories)
        return read_binary_categories(reader, count, values, err);
    size_t held = read_binary_numbers(reader, count, values);
    if (held < count) {
        size_t elements = reader->tensor->elements, element = count_read(reader) + held;
        return error_set(err, ERROR_INVALID,
                         "input '%s': element %zu of row %zu is not a %snumber that FP32 can hold",
                         reader->tensor->name, element % elements, element / elements,
                         reader->request->non_finite ? "" : "finite ");
    }
    reader->cursor += count * datatype_bytes(datatype);
    reader->elements_left -= count;
    return 0;
}

int infer_reader_rows(struct infer_reader *reader, size_t rows, void *values, struct error *err)
{
    size_t count = rows * reader->tensor->elements;
    assert(count <= reader->elements_left);
    return reader->input->binary ? read_binary(reader, count, values, err)
                                 : read_json(reader, count, values, err);
}

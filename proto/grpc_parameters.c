/* A value is one of several types; the last that is given counts, as in every proto3 reader. */
#include "proto/grpc_parameters.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/parse_json.h"
#include "proto/json.h"

enum {
    /* Memory for the labels of a request's rows while they are checked. */
    MAX_LABELS_HEAP = 4 << 20,
};

/* InferParameter; ModelRepositoryParameter has the same first three fields, and bytes as fourth. */
enum { BOOL_PARAM = 1, INT64_PARAM, STRING_PARAM, DOUBLE_PARAM, UINT64_PARAM };

int grpc_append_string(const struct wire_field *field, const char *what, struct buffer *json,
                       struct error *err)
{
    if (wire_check_string(field, what, err) != 0)
        return -1;
    buffer_text(json, "\"");
    json_append_text(json, field->bytes, field->length);
    buffer_text(json, "\"");
    return 0;
}

static int append_labels(const struct wire_field *value, struct buffer *json, struct error *err)
{
    struct json_fault fault = {.reason = "no list"};
    json_t *list = parse_json(value->bytes, value->length, 0, MAX_LABELS_HEAP, &fault);
    bool is_list = json_is_array(list);
    char *text = is_list ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    if (is_list ? !text : fault.kind == JSON_FAULT_NO_MEMORY)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for parameter 'labels'");
    if (!text)
        return error_set(err, ERROR_INVALID,
                         "parameter 'labels': expected a string that holds a JSON list (%s)",
                         fault.reason);
    buffer_text(json, text);
    free(text);
    return 0;
}

static void append_double(uint64_t bits, struct buffer *json)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    if (isfinite(value))
        json_append_double(json, value);
    else
        buffer_text(json, "null"); /* which JSON has no word for */
}

static int append_value(const struct wire_field *value, bool is_labels, struct buffer *json,
                        struct error *err)
{
    static const enum wire_type TYPES[] = {[BOOL_PARAM] = WIRE_VARINT,
                                           [INT64_PARAM] = WIRE_VARINT,
                                           [STRING_PARAM] = WIRE_BYTES,
                                           [UINT64_PARAM] = WIRE_VARINT};
    if (value->number != DOUBLE_PARAM && value->number != 0 &&
        wire_check_type(value, TYPES[value->number], "a parameter's value", err) != 0)
        return -1;
    switch (value->number) {
    case BOOL_PARAM:
        buffer_text(json, value->value ? "true" : "false");
        return 0;
    case INT64_PARAM:
        buffer_format(json, "%" PRId64, (int64_t)value->value);
        return 0;
    case UINT64_PARAM:
        buffer_format(json, "%" PRIu64, value->value);
        return 0;
    case STRING_PARAM:
        return is_labels ? append_labels(value, json, err)
                         : grpc_append_string(value, "a parameter's value", json, err);
    case DOUBLE_PARAM:
        if (value->type == WIRE_FIXED64) {
            append_double(value->value, json);
            return 0;
        }
    }
    buffer_text(json, "null"); /* none, or bytes, which nothing here takes */
    return 0;
}

/* The last field of a message with one of the numbers 1 to `most`; its number is 0 if there is
 * none. */
static int last_field(struct wire_reader reader, uint32_t most, struct wire_field *last,
                      struct error *err)
{
    struct wire_field field;
    int more;
    *last = (struct wire_field){0};
    while ((more = wire_next(&reader, &field, err)) == 1)
        if (field.number <= most)
            *last = field;
    return more;
}

/* Key and value of an entry of a map. */
static int read_entry(struct wire_reader reader, struct wire_field *key, struct wire_field *value,
                      struct error *err)
{
    struct wire_field field;
    int more;
    *key = (struct wire_field){.type = WIRE_BYTES, .bytes = ""};
    *value = (struct wire_field){.type = WIRE_BYTES, .bytes = ""};
    while ((more = wire_next(&reader, &field, err)) == 1) {
        if (field.number == 1)
            *key = field;
        if (field.number == 2)
            *value = field;
    }
    return more == 0 ? wire_check_type(value, WIRE_BYTES, "a parameter's value", err) : -1;
}

bool grpc_parameter_is(const struct wire_reader *outer, const struct wire_field *entry,
                       const char *name)
{
    struct wire_field key, message;
    struct error ignored = ERROR_INIT; /* said when it is appended */
    return entry->type == WIRE_BYTES &&
           read_entry(wire_reader_of(outer, entry), &key, &message, &ignored) == 0 &&
           key.type == WIRE_BYTES && key.length == strlen(name) &&
           memcmp(key.bytes, name, key.length) == 0;
}

int grpc_append_parameter(const struct wire_reader *outer, const struct wire_field *entry,
                          bool labels, bool first, struct buffer *json, struct error *err)
{
    struct wire_field key, message, value;
    if (wire_check_type(entry, WIRE_BYTES, "parameters", err) != 0 ||
        read_entry(wire_reader_of(outer, entry), &key, &message, err) != 0 ||
        last_field(wire_reader_of(outer, &message), UINT64_PARAM, &value, err) != 0)
        return -1;
    buffer_text(json, first ? "" : ",");
    if (grpc_append_string(&key, "the name of a parameter", json, err) != 0)
        return -1;
    buffer_text(json, ":");
    bool is_labels = labels && key.length == 6 && memcmp(key.bytes, "labels", 6) == 0;
    return append_value(&value, is_labels, json, err);
}

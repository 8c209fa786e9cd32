/* Small requests to JSON, and documents from JSON to messages.
 *
 * A message's fields are a table: which member of the document goes into which field. The type of a
 * field follows from the member's: numbers and booleans are varints, strings are bytes, objects are
 * messages, lists are repeated fields. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "proto/grpc.h"
#include "proto/grpc_parameters.h"
#include "proto/wire.h"

/* ---- answers ---- */

struct grpc_field {
    const char *key; /* of the document's member; NULL: the end of a table */
    uint32_t number;
    const struct grpc_field *fields; /* of a message */
    const char *const *words;        /* of an enum: what strings stand for, from 0; NULL ends */
};

static const char *const DATA_TYPES[] = {"TYPE_INVALID", "TYPE_BOOL",   "TYPE_UINT8", "TYPE_UINT16",
                                         "TYPE_UINT32",  "TYPE_UINT64", "TYPE_INT8",  "TYPE_INT16",
                                         "TYPE_INT32",   "TYPE_INT64",  "TYPE_FP16",  "TYPE_FP32",
                                         "TYPE_FP64",    "TYPE_STRING", "TYPE_BF16",  NULL};
static const char *const KINDS[] = {"KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL", NULL};

#define END                                                                                        \
    {                                                                                              \
        NULL, 0, NULL, NULL                                                                        \
    }

static const struct grpc_field EMPTY[] = {END}, LIVE[] = {{"live", 1, NULL, NULL}, END},
                               READY[] = {{"ready", 1, NULL, NULL}, END},
                               SERVER_METADATA[] = {{"name", 1, NULL, NULL},
                                                    {"version", 2, NULL, NULL},
                                                    {"extensions", 3, NULL, NULL},
                                                    END},
                               TENSOR_METADATA[] = {{"name", 1, NULL, NULL},
                                                    {"datatype", 2, NULL, NULL},
                                                    {"shape", 3, NULL, NULL},
                                                    END},
                               MODEL_METADATA[] = {{"name", 1, NULL, NULL},
                                                   {"versions", 2, NULL, NULL},
                                                   {"platform", 3, NULL, NULL},
                                                   {"inputs", 4, TENSOR_METADATA, NULL},
                                                   {"outputs", 5, TENSOR_METADATA, NULL},
                                                   END};

static const struct grpc_field CONFIG_INPUT[] = {{"name", 1, NULL, NULL},
                                                 {"data_type", 2, NULL, DATA_TYPES},
                                                 {"dims", 4, NULL, NULL},
                                                 END},
                               CONFIG_OUTPUT[] = {{"name", 1, NULL, NULL},
                                                  {"data_type", 2, NULL, DATA_TYPES},
                                                  {"dims", 3, NULL, NULL},
                                                  END},
                               BATCHING[] = {{"max_queue_delay_microseconds", 2, NULL, NULL}, END},
                               INSTANCE_GROUP[] = {{"name", 1, NULL, NULL},
                                                   {"kind", 4, NULL, KINDS},
                                                   {"count", 2, NULL, NULL},
                                                   END},
                               TRANSACTIONS[] = {{"decoupled", 1, NULL, NULL}, END},
                               CONFIG[] = {{"name", 1, NULL, NULL},
                                           {"platform", 2, NULL, NULL},
                                           {"backend", 17, NULL, NULL},
                                           {"max_batch_size", 4, NULL, NULL},
                                           {"input", 5, CONFIG_INPUT, NULL},
                                           {"output", 6, CONFIG_OUTPUT, NULL},
                                           {"dynamic_batching", 11, BATCHING, NULL},
                                           {"instance_group", 7, INSTANCE_GROUP, NULL},
                                           {"model_transaction_policy", 19, TRANSACTIONS, NULL},
                                           END};

static const struct grpc_field DURATION[] = {{"count", 1, NULL, NULL}, {"ns", 2, NULL, NULL}, END},
                               INFER_STATISTICS[] = {{"success", 1, DURATION, NULL},
                                                     {"fail", 2, DURATION, NULL},
                                                     {"queue", 3, DURATION, NULL},
                                                     {"compute_input", 4, DURATION, NULL},
                                                     {"compute_infer", 5, DURATION, NULL},
                                                     {"compute_output", 6, DURATION, NULL},
                                                     {"cache_hit", 7, DURATION, NULL},
                                                     {"cache_miss", 8, DURATION, NULL},
                                                     END},
                               BATCH_STATISTICS[] = {{"batch_size", 1, NULL, NULL},
                                                     {"compute_input", 2, DURATION, NULL},
                                                     {"compute_infer", 3, DURATION, NULL},
                                                     {"compute_output", 4, DURATION, NULL},
                                                     END},
                               MEMORY[] = {{"type", 1, NULL, NULL},
                                           {"id", 2, NULL, NULL},
                                           {"byte_size", 3, NULL, NULL},
                                           END},
                               MODEL_STATISTICS[] = {{"name", 1, NULL, NULL},
                                                     {"version", 2, NULL, NULL},
                                                     {"last_inference", 3, NULL, NULL},
                                                     {"inference_count", 4, NULL, NULL},
                                                     {"execution_count", 5, NULL, NULL},
                                                     {"inference_stats", 6, INFER_STATISTICS, NULL},
                                                     {"batch_stats", 7, BATCH_STATISTICS, NULL},
                                                     {"memory_usage", 8, MEMORY, NULL},
                                                     END},
                               STATISTICS[] = {{"model_stats", 1, MODEL_STATISTICS, NULL}, END};

static const struct grpc_field INDEX_ENTRY[] = {{"name", 1, NULL, NULL},
                                                {"version", 2, NULL, NULL},
                                                {"state", 3, NULL, NULL},
                                                {"reason", 4, NULL, NULL},
                                                END},
                               INDEX[] = {{"", 1, INDEX_ENTRY, NULL}, END},
                               CONFIG_ANSWER[] = {{"", 1, CONFIG, NULL}, END};

static const struct grpc_field *const ANSWERS[] = {
    [GRPC_EMPTY] = EMPTY,
    [GRPC_LIVE] = LIVE,
    [GRPC_READY] = READY,
    [GRPC_SERVING] = READY,
    [GRPC_SERVER_METADATA] = SERVER_METADATA,
    [GRPC_MODEL_METADATA] = MODEL_METADATA,
    [GRPC_MODEL_CONFIG] = CONFIG_ANSWER, /* the document is the only field */
    [GRPC_STATISTICS] = STATISTICS,
    [GRPC_INDEX_ENTRIES] = INDEX, /* the document is a list, the only field */
};

static void append_message(struct buffer *message, const json_t *object,
                           const struct grpc_field *fields);

static uint64_t word_value(const char *const *words, const char *text)
{
    uint64_t value = 0;
    while (words[value] && strcmp(words[value], text) != 0)
        value++;
    return words[value] ? value : 0;
}

/* proto3 does not write what is 0, false or "", but in a list. */
static void append_value(struct buffer *message, const struct grpc_field *field,
                         const json_t *value)
{
    struct buffer part;
    uint64_t number = json_is_integer(value) ? (uint64_t)json_integer_value(value)
                      : json_is_string(value) && field->words
                          ? word_value(field->words, json_string_value(value))
                          : (uint64_t)json_is_true(value);
    if (json_is_object(value) && field->fields) {
        buffer_init(&part, message->limit);
        append_message(&part, value, field->fields);
        wire_append_bytes(message, field->number, part.data, part.length);
        message->failed |= part.failed;
        buffer_close(&part);
    } else if (json_is_string(value) && !field->words) {
        wire_append_bytes(message, field->number, json_string_value(value),
                          json_string_length(value));
    } else if (number != 0) {
        wire_append_number(message, field->number, number);
    }
}

/* Numbers are packed. */
static void append_list(struct buffer *message, const struct grpc_field *field, const json_t *list)
{
    struct buffer packed;
    buffer_init(&packed, message->limit);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (json_is_integer(value))
            wire_append_varint(&packed, (uint64_t)json_integer_value(value));
        else
            append_value(message, field, value);
    }
    if (packed.length > 0)
        wire_append_bytes(message, field->number, packed.data, packed.length);
    message->failed |= packed.failed;
    buffer_close(&packed);
}

static void append_field(struct buffer *message, const struct grpc_field *field,
                         const json_t *value)
{
    if (json_is_array(value))
        append_list(message, field, value);
    else
        append_value(message, field, value);
}

static void append_message(struct buffer *message, const json_t *object,
                           const struct grpc_field *fields)
{
    for (; fields->key; fields++) {
        const json_t *value = *fields->key ? json_object_get(object, fields->key) : object;
        if (value)
            append_field(message, fields, value);
    }
}

/* Extensions whose methods only HTTP has. */
static void drop_extensions_of_http(json_t *metadata)
{
    json_t *extensions = json_object_get(metadata, "extensions");
    for (size_t i = json_array_size(extensions); i-- > 0;) {
        const char *name = json_string_value(json_array_get(extensions, i));
        if (name && (strcmp(name, "logging") == 0 || strcmp(name, "trace") == 0))
            (void)json_array_remove(extensions, i); /* it is there */
    }
}

int grpc_encode(enum grpc_answer answer, const char *json, size_t length, struct buffer *message,
                struct error *err)
{
    enum { SERVING = 1, NOT_SERVING };
    struct json_fault fault;
    json_t *document = parse_json(json, length, 0, SIZE_MAX, &fault); /* ours */
    if (!document)
        return error_set(err, ERROR_UNAVAILABLE, "no memory for the answer");
    if (answer == GRPC_SERVER_METADATA)
        drop_extensions_of_http(document);
    if (answer == GRPC_SERVING)
        wire_append_number(
            message, 1, json_is_true(json_object_get(document, "ready")) ? SERVING : NOT_SERVING);
    else
        append_message(message, document, ANSWERS[answer]);
    json_decref(document);
    return message->failed ? buffer_error(message, "the answer", "ask for less", err) : 0;
}

/* ---- requests ---- */

/* A request's JSON has only parameters. */
enum { MAX_JSON_BYTES = 64 << 10 };

/* In which fields a request has what, if at all. */
struct question_fields {
    uint32_t name, version, ready, parameters;
};

static const struct question_fields QUESTIONS[] = {
    [GRPC_NOTHING] = {0, 0, 0, 0}, [GRPC_MODEL] = {1, 2, 0, 0},  [GRPC_TENSORS] = {1, 2, 0, 0},
    [GRPC_INDEX] = {0, 0, 2, 0},   [GRPC_CHANGE] = {2, 0, 0, 3}, [GRPC_SERVICE] = {1, 0, 0, 0},
};

static int copy_text(const struct wire_field *field, const char *what, char *text, size_t size,
                     struct error *err)
{
    if (wire_check_string(field, what, err) != 0)
        return -1;
    if (field->length >= size)
        return error_set(err, ERROR_NOT_FOUND, "no model or version has a name of %zu bytes",
                         field->length);
    memcpy(text, field->bytes, field->length);
    text[field->length] = '\0';
    return 0;
}

/* What has been found so far. */
struct found {
    bool ready, any_parameter;
};

static int read_field(const struct question_fields *fields, const struct wire_reader *reader,
                      const struct wire_field *field, struct grpc_request *request,
                      struct found *found, struct error *err)
{
    if (field->number == fields->name)
        return copy_text(field, "the name of a model", request->name, sizeof request->name, err);
    if (field->number == fields->version)
        return copy_text(field, "the version of a model", request->version, sizeof request->version,
                         err);
    if (field->number == fields->parameters) {
        buffer_text(&request->json, found->any_parameter ? "" : "\"parameters\":{");
        if (grpc_append_parameter(reader, field, false, !found->any_parameter, &request->json,
                                  err) != 0)
            return -1;
        found->any_parameter = true;
    }
    if (field->number == fields->ready)
        found->ready = field->type == WIRE_VARINT && field->value != 0;
    return 0;
}

static int read_fields(const struct question_fields *fields, struct wire_reader *reader,
                       struct grpc_request *request, struct error *err)
{
    struct wire_field field;
    struct found found = {false, false};
    int more;
    while ((more = wire_next(reader, &field, err)) == 1)
        if (read_field(fields, reader, &field, request, &found, err) != 0)
            return -1;
    if (found.any_parameter)
        buffer_text(&request->json, "}");
    else if (found.ready)
        buffer_text(&request->json, "\"ready\":true");
    return more;
}

int grpc_decode(enum grpc_question question, const char *message, size_t length,
                struct grpc_request *request, struct error *err)
{
    struct wire_reader reader;
    *request = (struct grpc_request){.name = ""};
    wire_reader_init(&reader, message, length);
    buffer_init(&request->json, MAX_JSON_BYTES);
    buffer_text(&request->json, "{");
    int result = read_fields(&QUESTIONS[question], &reader, request, err);
    buffer_text(&request->json, "}");
    if (result == 0 && request->json.failed)
        result = buffer_error(&request->json, "what the request has as parameters",
                              "send fewer or shorter ones", err);
    if (result != 0)
        buffer_close(&request->json);
    return result;
}

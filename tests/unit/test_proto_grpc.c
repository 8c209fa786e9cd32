/* gRPC's messages, written field by field: what is read, what is refused, and documents as
 * messages. */
#include <math.h>

#include "proto/grpc.h"
#include "proto/wire.h"
#include "test_proto_support.h"

/* ---- writing requests ---- */

static struct buffer new_message(void)
{
    struct buffer message;
    buffer_init(&message, 1 << 16);
    return message;
}

/* Appends `part` as a field, and closes it. */
static void put(struct buffer *message, uint32_t field, struct buffer part)
{
    wire_append_bytes(message, field, part.data, part.length);
    buffer_close(&part);
}

/* An input "image" of `datatype` and one row, with `contents` as field 5 unless that is NULL. */
static struct buffer new_input(const char *datatype, struct buffer *contents)
{
    struct buffer input = new_message(), shape = new_message();
    wire_append_text(&input, 1, "image");
    wire_append_text(&input, 2, datatype);
    for (size_t i = 0; i < 4; i++)
        wire_append_varint(&shape, (const uint64_t[]){1, 1, 2, 3}[i]);
    put(&input, 3, shape);
    if (contents)
        put(&input, 5, *contents);
    return input;
}

/* An entry of a map, whose value has `field` as its only one. */
static void put_parameter(struct buffer *message, uint32_t map, const char *key, uint32_t field,
                          const char *text, uint64_t number)
{
    struct buffer entry = new_message(), value = new_message();
    wire_append_text(&entry, 1, key);
    if (text)
        wire_append_text(&value, field, text);
    else
        wire_append_number(&value, field, number);
    put(&entry, 2, value);
    put(message, map, entry);
}

static const float ROW[6] = {1, -2, 0.5f, 4, 5, 6};

/* ---- decoding ---- */

struct decoding {
    struct guarded copy;
    struct infer_request request;
    struct error err;
    int result;
};

static struct decoding decode_within(struct buffer *message, const struct infer_limits *limits)
{
    struct decoding decoding = {.copy = guarded_copy(message->data, message->length),
                                .err = ERROR_INIT};
    const struct infer_body body = {decoding.copy.text, decoding.copy.length, NULL};
    decoding.result =
        protocol_grpc.decode(&digits_model, &body, limits, &decoding.request, &decoding.err);
    buffer_close(message);
    return decoding;
}

static struct decoding decode(struct buffer *message)
{
    return decode_within(message, &test_limits);
}

static void finish(struct decoding *decoding)
{
    if (decoding->result == 0)
        infer_request_close(&decoding->request);
    guarded_free(&decoding->copy);
}

static void refused(struct buffer message, const char *expected)
{
    struct decoding decoding = decode(&message);
    ck_assert_int_eq(decoding.result, -1);
    ck_assert_str_eq(decoding.err.text, expected);
    finish(&decoding);
}

static void check_row(const struct infer_request *request, const float *expected)
{
    float values[6];
    struct infer_reader reader;
    struct error err = ERROR_INIT;
    ck_assert_uint_eq(request->rows, 1);
    infer_reader_init(&reader, request, 0);
    ck_assert_msg(infer_reader_rows(&reader, 1, values, &err) == 0, "%s", err.text);
    ck_assert_mem_eq(values, expected, sizeof values);
}

START_TEST(raw_tensors_are_read_in_place)
{
    struct buffer message = new_message();
    put(&message, 5, new_input("FP32", NULL));
    wire_append_text(&message, 3, "seven");
    wire_append_bytes(&message, 7, ROW, sizeof ROW);
    wire_append_number(&message, 99, 5); /* not known: passed over */
    struct decoding decoding = decode(&message);
    ck_assert_msg(decoding.result == 0, "%s", decoding.err.text);
    ck_assert_str_eq(decoding.request.id, "seven");
    ck_assert_ptr_eq(memmem(decoding.copy.text, decoding.copy.length, ROW, sizeof ROW),
                     decoding.request.inputs[0].data);
    check_row(&decoding.request, ROW);
    finish(&decoding);
}
END_TEST

START_TEST(what_clients_always_send_is_ignored)
{
    struct buffer message = new_message(), input = new_input("FP32", NULL);
    put_parameter(&input, 4, "binary_data_size", 2, NULL, 24);
    put_parameter(&input, 4, "other", 2, NULL, 24);
    put(&message, 5, input);
    put_parameter(&message, 4, "triton_enable_empty_final_response", 1, NULL, 1);
    put_parameter(&message, 4, "tag", 3, "me", 0);
    wire_append_bytes(&message, 7, ROW, sizeof ROW);
    struct decoding decoding = decode(&message);
    ck_assert_msg(decoding.result == 0, "%s", decoding.err.text);
    ck_assert_str_eq(decoding.request.tag, "me");
    check_row(&decoding.request, ROW);
    finish(&decoding);
}
END_TEST

static struct buffer with_contents(const char *datatype, struct buffer contents)
{
    struct buffer message = new_message();
    put(&message, 5, new_input(datatype, &contents));
    return message;
}

START_TEST(typed_contents_may_come_in_any_form)
{
    struct buffer packed = new_message(), single = new_message(), pieces = new_message();
    wire_append_bytes(&packed, 6, ROW, sizeof ROW);
    wire_append_bytes(&pieces, 6, ROW, 2 * sizeof *ROW);
    wire_append_bytes(&pieces, 6, ROW + 2, 4 * sizeof *ROW);
    for (size_t i = 0; i < 6; i++) {
        wire_append_varint(&single, 6 << 3 | WIRE_FIXED32);
        buffer_append(&single, &ROW[i], sizeof ROW[i]);
    }
    struct buffer messages[] = {with_contents("FP32", packed), with_contents("FP32", pieces),
                                with_contents("FP32", single)};
    for (size_t i = 0; i < 3; i++) {
        struct decoding decoding = decode(&messages[i]);
        ck_assert_msg(decoding.result == 0, "%zu: %s", i, decoding.err.text);
        check_row(&decoding.request, ROW);
        finish(&decoding);
    }
}
END_TEST

/* Raw or not, where the server accepts them, and nowhere else. */
START_TEST(nan_and_infinities_are_accepted_as_over_http)
{
    static const float WILD[6] = {NAN, INFINITY, -INFINITY, 4, 5, 6};
    for (int i = 0; i < 4; i++) {
        struct infer_limits limits = test_limits;
        struct buffer message = new_message(), contents = new_message();
        limits.non_finite = i & 1;
        if (i & 2) {
            wire_append_bytes(&contents, 6, WILD, sizeof WILD);
            put(&message, 5, new_input("FP32", &contents));
        } else {
            buffer_close(&contents);
            put(&message, 5, new_input("FP32", NULL));
            wire_append_bytes(&message, 7, WILD, sizeof WILD);
        }
        struct decoding decoding = decode_within(&message, &limits);
        float values[6];
        struct infer_reader reader;
        ck_assert_msg(decoding.result == 0, "%s", decoding.err.text);
        infer_reader_init(&reader, &decoding.request, 0);
        ck_assert_int_eq(infer_reader_rows(&reader, 1, values, &decoding.err),
                         limits.non_finite ? 0 : -1);
        if (limits.non_finite)
            ck_assert_mem_eq(values, WILD, sizeof WILD);
        finish(&decoding);
    }
}
END_TEST

START_TEST(integers_are_widened)
{
    static const float EXPECTED[6] = {1, -2, 127, -128, 0, 6};
    struct buffer packed = new_message(), contents = new_message();
    for (size_t i = 0; i < 6; i++)
        wire_append_varint(&packed, (uint64_t)(int64_t)EXPECTED[i]);
    put(&contents, 2, packed);
    struct buffer message = with_contents("INT8", contents);
    struct decoding decoding = decode(&message);
    ck_assert_msg(decoding.result == 0, "%s", decoding.err.text);
    check_row(&decoding.request, EXPECTED);
    finish(&decoding);
}
END_TEST

START_TEST(parameters_are_those_of_http)
{
    struct buffer message = new_message(), output = new_message();
    put(&message, 5, new_input("FP32", NULL));
    wire_append_bytes(&message, 7, ROW, sizeof ROW);
    put_parameter(&message, 4, "tag", 3, "canary", 0);
    put_parameter(&message, 4, "timeout", 2, NULL, 2500);
    put_parameter(&message, 4, "priority", 5, NULL, 1);
    put_parameter(&message, 4, "labels", 3, "[\"three\"]", 0);
    put_parameter(&message, 4, "experts", 3, "{\"moe\":{\"exclude\":[1]}}", 0);
    wire_append_text(&output, 1, "scores");
    put_parameter(&output, 2, "classification", 2, NULL, 3);
    put(&message, 6, output);
    struct decoding decoding = decode(&message);
    ck_assert_msg(decoding.result == 0, "%s", decoding.err.text);
    ck_assert_str_eq(decoding.request.tag, "canary");
    ck_assert_uint_eq(decoding.request.timeout_us, 2500);
    ck_assert_int_eq(decoding.request.labels[0], 3);
    ck_assert_uint_eq(decoding.request.overrides.count, 1);
    ck_assert_uint_eq(decoding.request.output_count, 1);
    ck_assert_uint_eq(decoding.request.outputs[0].classification, 3);
    finish(&decoding);
}
END_TEST

START_TEST(wrong_tensors_are_refused)
{
    struct buffer message = new_message();
    refused(new_message(), "input 'image' is missing");

    put(&message, 5, new_input("FP32", NULL));
    refused(message, "inputs[0] has neither 'contents' nor raw_input_contents");

    message = new_message();
    put(&message, 5, new_input("FP32", NULL));
    wire_append_bytes(&message, 7, ROW, sizeof ROW);
    wire_append_bytes(&message, 7, ROW, sizeof ROW);
    refused(message, "raw_input_contents has 2 tensors, expected one for each input: 1");

    message = new_message();
    put(&message, 5, new_input("FP32", NULL));
    wire_append_bytes(&message, 7, ROW, 20);
    refused(message, "input 'image': the number of its bytes is 20, expected 24 (1 row of 6 FP32)");
}
END_TEST

START_TEST(wrong_contents_are_refused)
{
    struct buffer contents = new_message(), message;
    wire_append_bytes(&contents, 6, ROW, sizeof ROW);
    message = with_contents("FP32", contents);
    wire_append_bytes(&message, 7, ROW, sizeof ROW);
    refused(message, "inputs[0] has 'contents' beside raw_input_contents: send one of them");

    contents = new_message();
    wire_append_bytes(&contents, 6, ROW, sizeof ROW);
    refused(with_contents("INT32", contents),
            "inputs[0]: datatype INT32 has its elements in int_contents, and this has field 6");
    contents = new_message();
    wire_append_bytes(&contents, 2, "\x80\x01", 2);
    refused(with_contents("INT8", contents), "inputs[0]: int_contents[0] is 128, which is no INT8");
    contents = new_message();
    wire_append_bytes(&contents, 6, ROW, 5);
    refused(with_contents("FP32", contents),
            "inputs[0]: fp32_contents has 5 bytes, expected 4 for each");
    contents = new_message();
    wire_append_bytes(&contents, 1, "\1\1", 2);
    refused(with_contents("BOOL", contents),
            "input 'image': datatype is 'BOOL', expected FP32 or another type of numbers");
    contents = new_message();
    wire_append_bytes(&contents, 6, "", 0);
    refused(with_contents("FP16", contents), "inputs[0]: FP16 cannot be in contents: send it raw");
}
END_TEST

START_TEST(parameters_that_are_wrong_are_refused)
{
    struct buffer message = new_message();
    put_parameter(&message, 4, "labels", 3, "1],\"tag\":[2", 0);
    struct decoding decoding = decode(&message);
    ck_assert_int_eq(decoding.result, -1);
    ck_assert_ptr_nonnull(strstr(decoding.err.text, "parameter 'labels': expected a string"));
    finish(&decoding);
    message = new_message();
    put_parameter(&message, 4, "triton_enable_empty_final_responses", 1, NULL, 1);
    refused(message, "parameter 'triton_enable_empty_final_responses': names that begin with "
                     "'triton_' are reserved");
    message = new_message();
    put_parameter(&message, 4, "tag", 3, "\xFF", 0);
    refused(message, "a parameter's value: byte 0 is not text in UTF-8");
    message = new_message();
    wire_append_number(&message, 4, 1);
    refused(message, "a field of the request has wire type 0, expected 2");
}
END_TEST

/* Fills one field with more elements than the model's largest request could have. */
START_TEST(contents_are_bounded)
{
    struct buffer contents = new_message(), zeros = new_message();
    for (size_t i = 0; i < 6 * test_limits.max_rows + 1; i++)
        wire_append_varint(&zeros, 0);
    put(&contents, 3, zeros);
    refused(with_contents("INT64", contents),
            "inputs[0]: int64_contents has more than the 48 elements of the largest request");
}
END_TEST

START_TEST(malformed_messages_are_refused)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *expected;
    } CASES[] = {
        {"\x80", 1,
         "malformed message at byte 0: the message ends inside the number that begins "
         "here"},
        {"\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", 11,
         "malformed message at byte 1: the number has more than 64 bits"},
        {"\x00", 1, "malformed message at byte 0: no field has this number"},
        {"\x0B", 1, "malformed message at byte 0: this type of field does not exist in proto3"},
        {"\x0A\x05ok", 4, "malformed message at byte 1: the field is longer than its message"},
        {"\x0D\x01\x02\x03", 4,
         "malformed message at byte 1: the message ends inside the number that begins here"},
        {"\x2A\x02\x0A\x05", 4,
         "malformed message at byte 3: the field is longer than its message"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct buffer message = new_message();
        buffer_append(&message, CASES[i].bytes, CASES[i].length);
        refused(message, CASES[i].expected);
    }
}
END_TEST

/* Every beginning of a message is refused or read, and nothing behind it is touched. */
START_TEST(cut_messages_are_safe)
{
    struct buffer whole = new_message();
    wire_append_text(&whole, 3, "id");
    put_parameter(&whole, 4, "tag", 3, "canary", 0);
    put(&whole, 5, new_input("FP32", NULL));
    wire_append_bytes(&whole, 7, ROW, sizeof ROW);
    for (size_t length = 0; length <= whole.length; length++) {
        struct buffer message = new_message();
        buffer_append(&message, whole.data, length);
        struct decoding decoding = decode(&message);
        ck_assert_int_eq(decoding.result, length == whole.length ? 0 : -1);
        finish(&decoding);
    }
    buffer_close(&whole);
}
END_TEST

/* ---- other requests ---- */

START_TEST(names_are_read)
{
    struct buffer message = new_message();
    struct grpc_request request;
    struct error err = ERROR_INIT;
    wire_append_text(&message, 1, "digits");
    wire_append_text(&message, 2, "3");
    ck_assert_int_eq(grpc_decode(GRPC_MODEL, message.data, message.length, &request, &err), 0);
    ck_assert_str_eq(request.name, "digits");
    ck_assert_str_eq(request.version, "3");
    buffer_close(&request.json);
    wire_append_bytes(&message, 1, "a\0b", 3);
    ck_assert_int_eq(grpc_decode(GRPC_MODEL, message.data, message.length, &request, &err), -1);
    ck_assert_str_eq(err.text, "the name of a model: byte 1 is not text in UTF-8");
    buffer_close(&message);
}
END_TEST

static void check_json(enum grpc_question question, struct buffer message, const char *expected)
{
    struct grpc_request request;
    struct error err = ERROR_INIT;
    ck_assert_int_eq(grpc_decode(question, message.data, message.length, &request, &err), 0);
    buffer_append(&request.json, "", 1);
    ck_assert_str_eq(request.json.data, expected);
    buffer_close(&request.json);
    buffer_close(&message);
}

START_TEST(requests_become_json)
{
    struct buffer index = new_message(), change = new_message();
    check_json(GRPC_INDEX, new_message(), "{}");
    wire_append_number(&index, 2, 1);
    check_json(GRPC_INDEX, index, "{\"ready\":true}");
    wire_append_text(&change, 2, "m");
    put_parameter(&change, 3, "config", 3, "{\"x\"}", 0);
    put_parameter(&change, 3, "file:1/a", 4, "bytes", 0);
    check_json(GRPC_CHANGE, change,
               "{\"parameters\":{\"config\":\"{\\\"x\\\"}\",\"file:1/a\":null}}");
}
END_TEST

/* ---- documents ---- */

static void check_message(enum grpc_answer answer, const char *json, const char *expected,
                          size_t length)
{
    struct buffer message = new_message();
    struct error err = ERROR_INIT;
    ck_assert_int_eq(grpc_encode(answer, json, strlen(json), &message, &err), 0);
    ck_assert_uint_eq(message.length, length);
    ck_assert_mem_eq(message.data, expected, length);
    buffer_close(&message);
}

START_TEST(documents_become_messages)
{
    check_message(GRPC_READY, "{\"name\":\"m\",\"ready\":true}", "\x08\x01", 2);
    check_message(GRPC_SERVING, "{\"ready\":true}", "\x08\x01", 2);
    check_message(GRPC_SERVING, "{\"ready\":false}", "\x08\x02", 2);
    check_message(GRPC_INDEX_ENTRIES, "[{\"name\":\"a\"},{\"name\":\"b\",\"state\":\"READY\"}]",
                  "\x0A\x03\x0A\x01"
                  "a\x0A\x0A\x0A\x01"
                  "b\x1A\x05READY",
                  17);
    check_message(GRPC_MODEL_METADATA,
                  "{\"name\":\"m\",\"versions\":[\"1\",\"2\"],\"inputs\":[{\"shape\":[-1,3]}]}",
                  "\x0A\x01m\x12\x01"
                  "1\x12\x01"
                  "2\x22\x0D\x1A\x0B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\x03",
                  24);
    check_message(GRPC_MODEL_CONFIG,
                  "{\"max_batch_size\":300,\"input\":[{\"data_type\":\"TYPE_FP32\"}]}",
                  "\x0A\x07\x20\xAC\x02\x2A\x02\x10\x0B", 9);
    check_message(GRPC_SERVER_METADATA, "{\"extensions\":[\"logging\",\"a\",\"trace\",\"b\"]}",
                  "\x1A\x01"
                  "a\x1A\x01"
                  "b",
                  6);
}
END_TEST

RUN_TESTS("proto grpc", raw_tensors_are_read_in_place, what_clients_always_send_is_ignored,
          typed_contents_may_come_in_any_form, nan_and_infinities_are_accepted_as_over_http,
          integers_are_widened, parameters_are_those_of_http, wrong_tensors_are_refused,
          wrong_contents_are_refused, parameters_that_are_wrong_are_refused, contents_are_bounded,
          malformed_messages_are_refused, cut_messages_are_safe, names_are_read,
          requests_become_json, documents_become_messages)

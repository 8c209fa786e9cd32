/* gRPC's messages against code that protobuf-c makes from proto/inference.proto: what one side
 * writes, the other reads. */
#include "inference.pb-c.h"
#include "proto/grpc.h"
#include "test_proto_support.h"

static const float ROWS[12] = {1, 2, 3, 4, 5, 6, -1, 0.25f, 0, 1e-9f, 7, 8};

static struct buffer pack(const Inference__ModelInferRequest *request)
{
    struct buffer message;
    buffer_init(&message, 1 << 16);
    size_t length = inference__model_infer_request__get_packed_size(request);
    inference__model_infer_request__pack(request, (uint8_t *)buffer_reserve(&message, length));
    message.length = length;
    return message;
}

/* A request for two rows of `digits`, whose numbers are in `contents`, or raw if that is NULL. */
static struct buffer pack_request(Inference__InferTensorContents *contents)
{
    int64_t shape[] = {2, 1, 2, 3};
    Inference__InferParameter value = INFERENCE__INFER_PARAMETER__INIT;
    value.parameter_choice_case = INFERENCE__INFER_PARAMETER__PARAMETER_CHOICE_STRING_PARAM;
    value.string_param = (char *)"{\"moe\":{\"exclude\":[1]}}";
    Inference__ModelInferRequest__ParametersEntry experts =
        INFERENCE__MODEL_INFER_REQUEST__PARAMETERS_ENTRY__INIT;
    experts.key = (char *)"experts";
    experts.value = &value;
    Inference__ModelInferRequest__InferInputTensor input =
        INFERENCE__MODEL_INFER_REQUEST__INFER_INPUT_TENSOR__INIT;
    input.name = (char *)"image";
    input.datatype = (char *)"FP32";
    input.n_shape = 4;
    input.shape = shape;
    input.contents = contents;
    Inference__ModelInferRequest__InferRequestedOutputTensor outputs[2] = {
        INFERENCE__MODEL_INFER_REQUEST__INFER_REQUESTED_OUTPUT_TENSOR__INIT,
        INFERENCE__MODEL_INFER_REQUEST__INFER_REQUESTED_OUTPUT_TENSOR__INIT};
    outputs[0].name = (char *)"scores";
    outputs[1].name = (char *)"routing.moe.experts";
    ProtobufCBinaryData raw = {sizeof ROWS, (uint8_t *)(uintptr_t)ROWS};
    Inference__ModelInferRequest request = INFERENCE__MODEL_INFER_REQUEST__INIT;
    request.model_name = (char *)"digits";
    request.id = (char *)"seven";
    request.n_parameters = request.n_inputs = 1;
    request.parameters = (Inference__ModelInferRequest__ParametersEntry *[]){&experts};
    request.inputs = (Inference__ModelInferRequest__InferInputTensor *[]){&input};
    request.n_outputs = 2;
    request.outputs =
        (Inference__ModelInferRequest__InferRequestedOutputTensor *[]){&outputs[0], &outputs[1]};
    request.n_raw_input_contents = contents ? 0 : 1;
    request.raw_input_contents = &raw;
    return pack(&request);
}

static void check_request(struct buffer message)
{
    struct infer_request request;
    struct error err = ERROR_INIT;
    struct infer_reader reader;
    float values[12];
    const struct infer_body body = {message.data, message.length, NULL};
    ck_assert_msg(protocol_grpc.decode(&digits_model, &body, &test_limits, &request, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(request.rows, 2);
    ck_assert_str_eq(request.id, "seven");
    ck_assert_uint_eq(request.overrides.count, 1);
    infer_reader_init(&reader, &request, 0);
    ck_assert_int_eq(infer_reader_rows(&reader, 2, values, &err), 0);
    ck_assert_mem_eq(values, ROWS, sizeof values);
    infer_request_close(&request);
    buffer_close(&message);
}

START_TEST(requests_are_read)
{
    Inference__InferTensorContents contents = INFERENCE__INFER_TENSOR_CONTENTS__INIT;
    contents.n_fp32_contents = 12;
    contents.fp32_contents = (float *)(uintptr_t)ROWS;
    check_request(pack_request(NULL));
    check_request(pack_request(&contents));
}
END_TEST

START_TEST(answers_can_be_read)
{
    struct fake_result fake;
    struct infer_request request;
    struct error err = ERROR_INIT;
    struct buffer message = pack_request(NULL), answer;
    size_t json_length = 1;
    fake_result_init(&fake);
    const struct infer_body body = {message.data, message.length, NULL};
    ck_assert_int_eq(protocol_grpc.decode(&digits_model, &body, &test_limits, &request, &err), 0);
    request.outputs[0].classification = 0;
    buffer_init(&answer, 1 << 16);
    ck_assert_int_eq(protocol_grpc.encode(&request, &fake.result, &answer, &json_length, &err), 0);
    ck_assert_uint_eq(json_length, 0);
    Inference__ModelInferResponse *read =
        inference__model_infer_response__unpack(NULL, answer.length, (const uint8_t *)answer.data);
    ck_assert_ptr_nonnull(read);
    ck_assert_str_eq(read->model_name, "digits");
    ck_assert_str_eq(read->model_version, "3");
    ck_assert_str_eq(read->id, "seven");
    ck_assert_uint_eq(read->n_parameters, 1);
    ck_assert_str_eq(read->parameters[0]->value->string_param, request.overrides.text);
    ck_assert_uint_eq(read->n_outputs, 2);
    ck_assert_str_eq(read->outputs[0]->name, "scores");
    ck_assert_str_eq(read->outputs[0]->datatype, "FP32");
    ck_assert_uint_eq(read->outputs[0]->n_shape, 2);
    ck_assert_int_eq(read->outputs[0]->shape[0], 2);
    ck_assert_int_eq(read->outputs[0]->shape[1], 4);
    ck_assert_str_eq(read->outputs[1]->name, "routing.moe.experts");
    ck_assert_str_eq(read->outputs[1]->datatype, "INT32");
    ck_assert_uint_eq(read->n_raw_output_contents, 2);
    ck_assert_uint_eq(read->raw_output_contents[0].len, 2 * 4 * sizeof(float));
    ck_assert_mem_eq(read->raw_output_contents[0].data, fake.outputs, 2 * 4 * sizeof(float));
    ck_assert_mem_eq(read->raw_output_contents[1].data, fake.experts[0], 2 * 2 * sizeof(int32_t));
    inference__model_infer_response__free_unpacked(read, NULL);
    infer_request_close(&request);
    buffer_close(&answer);
    buffer_close(&message);
}
END_TEST

START_TEST(classes_are_strings_with_their_lengths)
{
    struct fake_result fake;
    struct infer_request request;
    struct error err = ERROR_INIT;
    struct buffer message = pack_request(NULL), answer;
    size_t json_length;
    fake_result_init(&fake);
    const struct infer_body body = {message.data, message.length, NULL};
    ck_assert_int_eq(protocol_grpc.decode(&digits_model, &body, &test_limits, &request, &err), 0);
    request.outputs[0].classification = 1;
    buffer_init(&answer, 1 << 16);
    ck_assert_int_eq(protocol_grpc.encode(&request, &fake.result, &answer, &json_length, &err), 0);
    Inference__ModelInferResponse *read =
        inference__model_infer_response__unpack(NULL, answer.length, (const uint8_t *)answer.data);
    ck_assert_ptr_nonnull(read);
    ck_assert_str_eq(read->outputs[0]->datatype, "BYTES");
    ck_assert_int_eq(read->outputs[0]->shape[1], 1);
    const uint8_t *bytes = read->raw_output_contents[0].data;
    ck_assert_uint_eq(bytes[0], read->raw_output_contents[0].len / 2 - 4); /* two of one length */
    ck_assert_ptr_nonnull(memchr(bytes + 4, ':', bytes[0]));
    inference__model_infer_response__free_unpacked(read, NULL);
    infer_request_close(&request);
    buffer_close(&answer);
    buffer_close(&message);
}
END_TEST

START_TEST(documents_can_be_read)
{
    static const char JSON[] =
        "{\"name\":\"m\",\"platform\":\"moed\",\"backend\":\"moed\",\"max_batch_size\":64,"
        "\"input\":[{\"name\":\"x\",\"data_type\":\"TYPE_FP32\",\"dims\":[2,3]}],"
        "\"output\":[{\"name\":\"y\",\"data_type\":\"TYPE_STRING\",\"dims\":[4]}],"
        "\"dynamic_batching\":{\"max_queue_delay_microseconds\":100},"
        "\"instance_group\":[{\"name\":\"cpu\",\"kind\":\"KIND_CPU\",\"count\":1}],"
        "\"model_transaction_policy\":{\"decoupled\":false}}";
    struct buffer message;
    struct error err = ERROR_INIT;
    buffer_init(&message, 1 << 16);
    ck_assert_int_eq(grpc_encode(GRPC_MODEL_CONFIG, JSON, strlen(JSON), &message, &err), 0);
    Inference__ModelConfigResponse *read = inference__model_config_response__unpack(
        NULL, message.length, (const uint8_t *)message.data);
    ck_assert_ptr_nonnull(read);
    ck_assert_str_eq(read->config->name, "m");
    ck_assert_int_eq(read->config->max_batch_size, 64);
    ck_assert_int_eq(read->config->input[0]->data_type, INFERENCE__DATA_TYPE__TYPE_FP32);
    ck_assert_int_eq(read->config->input[0]->dims[1], 3);
    ck_assert_int_eq(read->config->output[0]->data_type, INFERENCE__DATA_TYPE__TYPE_STRING);
    ck_assert_uint_eq(read->config->dynamic_batching->max_queue_delay_microseconds, 100);
    ck_assert_int_eq(read->config->instance_group[0]->kind,
                     INFERENCE__MODEL_INSTANCE_GROUP__KIND__KIND_CPU);
    inference__model_config_response__free_unpacked(read, NULL);
    buffer_close(&message);
}
END_TEST

RUN_TESTS("proto grpc peer", requests_are_read, answers_can_be_read,
          classes_are_strings_with_their_lengths, documents_can_be_read)

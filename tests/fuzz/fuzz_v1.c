/* Fuzzes v1_decode(), infer_reader and v1_encode() with any body. */
#include "fuzz_exchange.h"
#include "libfuzzer.h"
#include "proto/v1.h"

static void check_answer(const struct infer_request *request)
{
    static const float numbers[EXCHANGE_MAX_NUMBERS] = {0.25f, 1, -2, 3e-9f, 7};
    static const int32_t experts[EXCHANGE_MAX_NUMBERS] = {0, 4, 2};
    const float *floats[] = {numbers, numbers};
    const int32_t *integers[] = {experts, experts};
    const struct infer_result result = {
        .outputs = floats, .routing_experts = integers, .routing_weights = floats};
    struct buffer body;
    buffer_init(&body, 1 << 16);
    struct error err = ERROR_INIT;
    size_t json_length;
    require(v1_encode(request, &result, &body, &json_length, &err) == 0);
    json_t *answer = json_loadb(body.data, body.length, 0, NULL);
    const json_t *rows = json_object_get(answer, request->columns ? "outputs" : "predictions");
    require(json_array_size(rows) == request->rows);
    require(json_is_object(json_object_get(answer, "routing")) == request->routing);
    require(json_is_object(json_object_get(answer, "experts")) == !!request->overrides.text);
    json_decref(answer);
    buffer_close(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *body = (const char *)data;
    struct infer_request request;
    struct error err = ERROR_INIT;
    if (v1_decode(&digits_model, &(struct infer_body){.bytes = body, .length = size}, &test_limits,
                  &request, &err) != 0) {
        check_error(&err);
        return 0;
    }
    require(request.rows >= 1 && request.rows <= test_limits.max_rows);
    float values[EXCHANGE_MAX_NUMBERS];
    if (read_input(&request, 0, values) == 0) {
        check_numbers(&request, 0, values);
        json_t *parsed = parse_like_us(body, size);
        const json_t *rows = json_object_get(parsed, "instances");
        require(json_is_null(rows) || !rows || json_array_size(rows) == request.rows);
        json_decref(parsed);
    }
    check_answer(&request);
    infer_request_close(&request);
    return 0;
}

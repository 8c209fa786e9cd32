/* Fuzzes oip_decode(), infer_reader and oip_encode() with any body. An input is the header's value,
 * a newline, and the body; an empty first line means no header. */
#include "fuzz_exchange.h"
#include "libfuzzer.h"
#include "proto/oip.h"

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
    size_t json_length;
    struct error err = ERROR_INIT;
    require(oip_encode(request, &result, &body, &json_length, &err) == 0);
    json_t *answer = json_loadb(body.data, json_length ? json_length : body.length, 0, NULL);
    require(json_array_size(json_object_get(answer, "outputs")) == request->output_count);
    json_t *parameters = json_object_get(answer, "parameters");
    const char *carried = json_string_value(json_object_get(parameters, "experts"));
    require(!carried == !request->overrides.text);
    require(!carried || strcmp(carried, request->overrides.text) == 0);
    json_decref(answer);
    buffer_close(&body);
}

static void check_request(const struct signature *model, const char *body, size_t length,
                          const char *header)
{
    struct infer_request request;
    struct error err = ERROR_INIT;
    if (oip_decode(model, &(struct infer_body){body, length, header}, &test_limits, &request,
                   &err) != 0) {
        check_error(&err);
        return;
    }
    require(request.rows >= 1 && request.rows <= test_limits.max_rows);
    int read = 0;
    for (size_t i = 0; i < model->input_count && read == 0; i++) {
        float values[EXCHANGE_MAX_NUMBERS];
        read = read_input(&request, i, values);
        if (read == 0)
            check_numbers(&request, i, values);
    }
    /* jansson must accept every body that is accepted to the end. */
    if (read == 0 && !header) {
        json_t *parsed = parse_like_us(body, length);
        require(json_is_object(parsed));
        json_decref(parsed);
    }
    check_answer(&request);
    infer_request_close(&request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    if (!newline)
        return 0;
    size_t header_bytes = (size_t)(newline - data), length = size - header_bytes - 1;
    char *header = strndup((const char *)data, header_bytes);
    char *body = malloc(length ? length : 1); /* a copy, so that over-reads are detected */
    memcpy(body, newline + 1, length);
    check_request(&digits_model, body, length, *header ? header : NULL);
    check_request(&pair_model, body, length, *header ? header : NULL);
    free(body);
    free(header);
    return 0;
}

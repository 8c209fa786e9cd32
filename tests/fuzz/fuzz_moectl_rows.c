/* Files of rows: .npy, .npz and JSON. What is taken fits the model's shape to the byte. */
#include <stdlib.h>

#include "clients/c/moectl/inputs.h"
#include "libfuzzer.h"

static const struct moed_client_tensor INPUTS[] = {
    {"x", MOED_CLIENT_FP32, 3, {-1, 2, 3}, NULL, 0, 0},
    {"job", MOED_CLIENT_INT32, 2, {-1, 1}, NULL, 0, 7},
};

static void check_model(size_t inputs_of_model, const char *data, size_t size)
{
    const struct moed_client_model model = {
        .name = "m", .inputs = INPUTS, .input_count = inputs_of_model};
    struct moed_client_error err = {0};
    struct inputs inputs;
    if (inputs_parse(&inputs, &model, data, size, &err) != 0) {
        if (err.code == MOED_CLIENT_OK || !*err.text)
            abort();
        return;
    }
    struct moed_client_tensor part[2];
    inputs_slice(&inputs, inputs.rows - 1, 1, part);
    for (size_t i = 0; i < inputs.count; i++) {
        size_t numbers = i == 0 ? 6 : 1;
        size_t bytes = numbers * moed_client_datatype_bytes(part[i].datatype);
        volatile char last = ((const char *)part[i].data)[bytes - 1];
        if (part[i].bytes != bytes || inputs.tensors[i].bytes != bytes * inputs.rows)
            abort();
        (void)last;
    }
    inputs_close(&inputs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_model(1, (const char *)data, size);
    check_model(2, (const char *)data, size);
    return 0;
}

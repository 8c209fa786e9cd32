/* Answers of a confused server: two bytes of the JSON's length, the answer. Every tensor that is
 * handed on has the bytes that its shape asks for. */
#include <stdlib.h>
#include <string.h>

#include "clients/c/internal.h"
#include "libfuzzer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct moed_client_answer answer = {.length = size - 2,
                                        .json_length = data[0] | (size_t)data[1] << 8};
    answer.body = malloc(answer.length + 1);
    memcpy(answer.body, data + 2, answer.length);
    answer.body[answer.length] = '\0';
    const struct moed_client_result *result = client_read_result(&answer, NULL);
    for (size_t i = 0; result && i < result->output_count; i++) {
        const struct moed_client_tensor *tensor = &result->outputs[i];
        size_t bytes = moed_client_datatype_bytes(tensor->datatype);
        for (size_t j = 0; j < tensor->rank; j++)
            bytes *= (size_t)tensor->dims[j];
        if (tensor->datatype != MOED_CLIENT_BYTES && bytes != tensor->bytes)
            abort();
        volatile char last = tensor->bytes ? ((const char *)tensor->data)[tensor->bytes - 1] : 0;
        (void)last;
    }
    moed_client_result_free(result);
    moed_client_answer_close(&answer);
    return 0;
}

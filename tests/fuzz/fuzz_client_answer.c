/* Answers of a confused server: two bytes of the JSON's length, the answer. Every tensor that is
 * handed on has the bytes that its shape asks for. As a stream, the first byte says where it is cut
 * and the second how long an event may be: its events are the same as those of the whole. */
#include <stdlib.h>
#include <string.h>

#include "clients/c/events.h"
#include "clients/c/internal.h"
#include "libfuzzer.h"

/* ---- a stream ---- */

/* Every event with its length, and what ended it. */
struct heard {
    char *bytes;
    size_t length, capacity, count;
    enum client_events_end end;
};

static bool hear(void *context, const char *data, size_t length)
{
    struct heard *heard = context;
    if (data[length] != '\0' ||
        client_grow(&heard->bytes, &heard->capacity, heard->length + sizeof length + length) != 0)
        abort();
    memcpy(heard->bytes + heard->length, &length, sizeof length);
    memcpy(heard->bytes + heard->length + sizeof length, data, length);
    heard->length += sizeof length + length;
    return ++heard->count < 100;
}

static struct heard listen_to(const char *bytes, size_t length, size_t step, size_t most)
{
    struct heard heard = {0};
    struct client_events events = {.on_event = hear, .context = &heard, .most = most};
    for (size_t at = 0; at < length && heard.end == EVENTS_GO_ON; at += step)
        heard.end =
            client_events_feed(&events, bytes + at, step < length - at ? step : length - at);
    if (events.length > most)
        abort();
    client_events_close(&events);
    return heard;
}

static void check_stream(const uint8_t *data, const struct moed_client_answer *answer)
{
    const size_t most = 4 * (size_t)data[1];
    struct heard whole = listen_to(answer->body, answer->length, answer->length, most);
    struct heard parts = listen_to(answer->body, answer->length, data[0] % 16 + 1, most);
    if (whole.end != parts.end || whole.count != parts.count || whole.length != parts.length ||
        (whole.length > 0 && memcmp(whole.bytes, parts.bytes, whole.length) != 0))
        abort();
    free(whole.bytes);
    free(parts.bytes);
}

/* ---- tensors ---- */

static void check_tensors(const struct moed_client_answer *answer)
{
    const struct moed_client_result *result = client_read_result(answer, NULL);
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
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct moed_client_answer answer = {.length = size - 2,
                                        .json_length = data[0] | (size_t)data[1] << 8};
    answer.body = malloc(answer.length + 1);
    memcpy(answer.body, data + 2, answer.length);
    answer.body[answer.length] = '\0';
    check_tensors(&answer);
    check_stream(data, &answer);
    moed_client_answer_close(&answer);
    return 0;
}

/* Compressed bodies: the first byte says how they are coded. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "proto/coding.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT = 100000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    struct buffer body, again, back;
    if (size == 0)
        return 0;
    enum coding coding = data[0] & 1 ? CODING_GZIP : CODING_DEFLATE;
    buffer_init(&body, LIMIT);
    buffer_init(&again, 2 * LIMIT);
    buffer_init(&back, LIMIT);
    int result = coding_expand(coding, (const char *)data + 1, size - 1, &body, &err);
    if (body.length > LIMIT || (result != 0) != (err.code != ERROR_NONE))
        abort();
    /* What came out is what would come out again. */
    if (result == 0 && body.length > 0) {
        coding_compress(body.data, body.length, &again);
        if (again.failed ||
            coding_expand(CODING_GZIP, again.data, again.length, &back, &err) != 0 ||
            back.length != body.length)
            abort();
    }
    buffer_close(&body);
    buffer_close(&again);
    buffer_close(&back);
    return 0;
}

/* A tokenizer.json, a NUL, a text: loading, encoding, decoding at once and in a stream; what its
 * length says of its tokens. */
#include <stdlib.h>
#include <string.h>

#include "libfuzzer.h"
#include "proto/text/detokenizer.h"
#include "proto/text/unicode.h"

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void check_stream(const struct tokenizer *tokenizer, const struct token_ids *tokens)
{
    struct error err = ERROR_INIT;
    struct detokenizer detokenizer;
    struct buffer text;
    buffer_init(&text, 1 << 20);
    detokenizer_init(&detokenizer, tokenizer, false);
    for (size_t i = 0, before = 0; i < tokens->count; i++, before = text.length) {
        require(detokenizer_add(&detokenizer, tokens->ids[i], &text, &err) == 0);
        const size_t added = text.length - before; /* whole characters */
        require(unicode_check(added ? text.data + before : "", added) == added);
    }
    detokenizer_end(&detokenizer, &text);
    detokenizer_close(&detokenizer);
    buffer_close(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *json = (const char *)data;
    const char *nul = size ? memchr(json, '\0', size) : NULL;
    size_t length = nul ? (size_t)(nul - json) : size;
    struct error err = ERROR_INIT;
    struct tokenizer *tokenizer = tokenizer_new(json, length, &err);
    if (!tokenizer) {
        require(err.code != ERROR_NONE && *err.text);
        return 0;
    }
    struct token_ids tokens;
    if (nul && tokenizer_encode(tokenizer, nul + 1, size - length - 1, true, &tokens, &err) == 0) {
        struct buffer text;
        require(tokenizer_fewest(tokenizer, nul + 1, size - length - 1) <= tokens.count);
        buffer_init(&text, 1 << 20);
        bool known = tokenizer_decode(tokenizer, tokens.ids, tokens.count, true, &text, &err) == 0;
        if (known)
            check_stream(tokenizer, &tokens);
        buffer_close(&text);
        token_ids_close(&tokens);
    }
    tokenizer_free(tokenizer);
    return 0;
}

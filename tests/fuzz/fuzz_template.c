/* A template, and perhaps a NUL and the JSON of its variables: parsed, rendered within bounds. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "libfuzzer.h"
#include "proto/text/template.h"
#include "proto/text/unicode.h"

static const char VARIABLES[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b "
    "<c>\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":"
    "{\"x\":1.5,\"y\":[true,null]}}}]}],\"tools\":[{\"type\":\"function\"}],\"bos_token\":\"<s>\","
    "\"add_generation_prompt\":true}";

static void require(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *source = (const char *)data;
    const char *nul = size ? memchr(source, '\0', size) : NULL;
    size_t length = nul ? (size_t)(nul - source) : size;
    struct error err = ERROR_INIT;
    struct chat_template *chat_template = chat_template_new(source, length, &err);
    if (!chat_template) {
        require(err.code != ERROR_NONE && *err.text);
        return 0;
    }
    json_t *variables = nul ? json_loadb(nul + 1, size - length - 1, 0, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_loads(VARIABLES, 0, NULL);
    }
    struct buffer text;
    buffer_init(&text, 1 << 20);
    if (chat_template_render(chat_template, variables, 0, &text, &err) != 0)
        require(err.code != ERROR_NONE && *err.text);
    else
        require(unicode_check(text.data ? text.data : "", text.length) == text.length);
    buffer_close(&text);
    json_decref(variables);
    chat_template_free(chat_template);
    return 0;
}

/* jansson escapes what JSON must escape; here the rest of what no terminal should be sent. */
#include "clients/c/moectl/print_json.h"

#include <stdlib.h>

#include "clients/c/moectl/support.h"
#include "clients/c/text.h"

void print_json(FILE *out, const json_t *json, size_t flags)
{
    char *text = xchecked(json_dumps(json, flags | JSON_ENCODE_ANY));
    for (const char *at = text; *at;) {
        uint32_t code;
        size_t bytes = text_character(at, &code);
        bytes = bytes ? bytes : 1;
        if (text_is_control(code) && code != '\n') /* of the layout; in strings it is escaped */
            fprintf(out, "\\u%04X", (unsigned)code);
        else
            fwrite(at, 1, bytes, out);
        at += bytes;
    }
    fputc('\n', out);
    free(text);
}

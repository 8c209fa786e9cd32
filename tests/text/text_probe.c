/* The tokenizer and the template engine as a pipe, for tests against other implementations:
 *
 *   text_probe TOKENIZER.json       reads frames of flags and text, writes ids and decoded texts
 *   text_probe --template           reads pairs of texts, a template and the JSON of its variables;
 *                                   writes 0 or 1, and the text or the error message
 *
 * A text is the number of its bytes and the bytes. Numbers are 32 bits, as the machine has them.
 * In: flags (1: add special tokens, 2: leave special tokens out of the decoded text), bytes, text.
 * Out: ids, each id; then two texts: all ids decoded at once, and one by one. In place of the
 * number of ids there may be UINT32_MAX: then an error message follows. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/detokenizer.h"
#include "proto/text/template.h"

static bool read_number(uint32_t *number)
{
    return fread(number, sizeof *number, 1, stdin) == 1;
}

static void write_number(uint32_t number)
{
    fwrite(&number, sizeof number, 1, stdout);
}

static void write_text(const char *text, size_t length)
{
    write_number((uint32_t)length);
    if (length > 0)
        fwrite(text, 1, length, stdout);
}

static int stream(const struct tokenizer *tokenizer, const struct token_ids *tokens, bool skip,
                  struct buffer *text, struct error *err)
{
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, skip);
    int result = 0;
    for (size_t i = 0; i < tokens->count && result == 0; i++)
        result = detokenizer_add(&detokenizer, tokens->ids[i], text, err);
    detokenizer_end(&detokenizer, text);
    detokenizer_close(&detokenizer);
    return result;
}

static void answer(const struct tokenizer *tokenizer, uint32_t flags, const char *text,
                   size_t length)
{
    struct error err = ERROR_INIT;
    struct token_ids tokens = {0};
    struct buffer whole, parts;
    buffer_init(&whole, SIZE_MAX);
    buffer_init(&parts, SIZE_MAX);
    bool skip = flags & 2;
    if (tokenizer_encode(tokenizer, text, length, flags & 1, &tokens, &err) != 0 ||
        tokenizer_decode(tokenizer, tokens.ids, tokens.count, skip, &whole, &err) != 0 ||
        stream(tokenizer, &tokens, skip, &parts, &err) != 0) {
        write_number(UINT32_MAX);
        write_text(err.text, strlen(err.text));
    } else {
        write_number((uint32_t)tokens.count);
        if (tokens.count > 0)
            fwrite(tokens.ids, sizeof *tokens.ids, tokens.count, stdout);
        write_text(whole.data, whole.length);
        write_text(parts.data, parts.length);
    }
    token_ids_close(&tokens);
    buffer_close(&whole);
    buffer_close(&parts);
}

/* ---- templates ---- */

/* The next text, NUL-terminated; NULL at the end. Caller frees. */
static char *read_text(uint32_t *length)
{
    if (!read_number(length))
        return NULL;
    char *text = xmalloc(*length + 1);
    text[fread(text, 1, *length, stdin)] = '\0';
    return text;
}

static void answer_template(const char *source, size_t length, const json_t *variables)
{
    struct error err = ERROR_INIT;
    struct buffer text;
    buffer_init(&text, 64 << 20);
    struct chat_template *chat_template = chat_template_new(source, length, &err);
    int result = chat_template
                     ? chat_template_render(chat_template, variables, 1700000000, &text, &err)
                     : -1;
    write_number(result == 0 ? 0 : 1);
    if (result == 0)
        write_text(text.data, text.length);
    else
        write_text(err.text, strlen(err.text));
    chat_template_free(chat_template);
    buffer_close(&text);
}

static int run_templates(void)
{
    uint32_t length, json_length;
    char *source, *json;
    while ((source = read_text(&length)) && (json = read_text(&json_length))) {
        json_t *variables = json_loadb(json, json_length, JSON_ALLOW_NUL, NULL);
        answer_template(source, length, variables);
        fflush(stdout);
        json_decref(variables);
        free(source);
        free(json);
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct error err = ERROR_INIT;
    if (argc == 2 && strcmp(argv[1], "--template") == 0)
        return run_templates();
    struct tokenizer *tokenizer = argc == 2 ? tokenizer_load(argv[1], &err) : NULL;
    if (!tokenizer) {
        fprintf(stderr, "text_probe TOKENIZER.json: %s\n", err.text);
        return EXIT_FAILURE;
    }
    uint32_t flags, length;
    while (read_number(&flags) && read_number(&length)) {
        char *text = xmalloc(length + 1);
        if (fread(text, 1, length, stdin) == length)
            answer(tokenizer, flags, text, length);
        fflush(stdout);
        free(text);
    }
    tokenizer_free(tokenizer);
    return EXIT_SUCCESS;
}

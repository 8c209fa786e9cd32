/* Fuzzes the files beside a tokenizer: tokenizer_config.json, a NUL, generation_config.json, a NUL,
 * a text that is encoded, streamed and put into the chat template. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libfuzzer.h"
#include "proto/language.h"
#include "proto/text/unicode.h"

static const char TOKENIZER[] =
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]},"
    "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,\"normalized\":false}]}";

/* One for each process; it goes with it. */
static char directory[64];

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void write_file(const char *name, const void *bytes, size_t count)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    require(file != NULL);
    require(fwrite(bytes, 1, count, file) == count);
    require(fclose(file) == 0);
}

static void remove_directory(void)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "generation_config.json"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    snprintf(directory, sizeof directory, "/tmp/moed-fuzz-language-%d", (int)getpid());
    require(mkdir(directory, 0700) == 0 && atexit(remove_directory) == 0);
    write_file("tokenizer.json", TOKENIZER, strlen(TOKENIZER));
    return 0;
}

static void check_text(const struct language *language, const char *text, size_t length)
{
    struct error err = ERROR_INIT;
    struct token_ids tokens;
    struct text_stream stream;
    struct buffer out;
    if (language_encode(language, text, length, true, &tokens, &err) != 0)
        return;
    buffer_init(&out, 1 << 20);
    require(text_stream_init(&stream, language, (const char *const[]){"aba"}, 1, &err) == 0);
    for (size_t i = 0; i < tokens.count && !text_stream_add(&stream, tokens.ids[i], &out); i++)
        (void)language_is_stop(language, tokens.ids[i]);
    (void)text_stream_end(&stream, &out);
    require(unicode_check(out.data ? out.data : "", out.length) == out.length);
    text_stream_close(&stream);
    token_ids_close(&tokens);
    buffer_close(&out);
}

static void check_chat(const struct language *language, const char *text, size_t length)
{
    struct error err = ERROR_INIT;
    struct buffer out;
    json_t *variables =
        json_pack("{s:[{s:s,s:s%}]}", "messages", "role", "user", "content", text, length);
    buffer_init(&out, 1 << 20);
    if (variables && language_render(language, variables, 0, &out, &err) != 0)
        require(err.code != ERROR_NONE && *err.text);
    json_decref(variables);
    buffer_close(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *rest = (const char *)data, *end = rest + size;
    static const char *const names[] = {"tokenizer_config.json", "generation_config.json"};
    for (size_t i = 0; i < 2; i++) {
        const char *nul = rest < end ? memchr(rest, '\0', (size_t)(end - rest)) : NULL;
        const char *stop = nul ? nul : end;
        write_file(names[i], rest, (size_t)(stop - rest));
        rest = nul ? nul + 1 : end;
    }
    struct error err = ERROR_INIT;
    struct language *language = language_load(directory, &err);
    if (!language) {
        require(err.code != ERROR_NONE && *err.text);
        return 0;
    }
    (void)language_check(language, 4, &err);
    check_text(language, rest, (size_t)(end - rest));
    check_chat(language, rest, (size_t)(end - rest));
    language_free(language);
    return 0;
}

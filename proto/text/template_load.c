/* Where published models keep their template. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "proto/text/json_node.h"
#include "proto/text/template.h"
#include "proto/text/template_node.h"

enum { PATH_BYTES = 4096 };

/* "bos_token": "<s>" or {"content": "<s>", ...}, and the like. */
static json_t *special_tokens(const json_t *config)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    json_t *specials = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *token = json_object_get(config, names[i]);
        if (json_is_object(token))
            token = json_object_get(token, "content");
        if (json_is_string(token))
            json_object_set(specials, names[i], token);
    }
    return specials;
}

/* One text, or the "default" of [{"name": ..., "template": ...}, ...]; NULL: there is none. */
static const char *template_of(const json_t *config, size_t *length)
{
    const json_t *value = json_object_get(config, "chat_template"), *item;
    size_t index;
    json_array_foreach(value, index, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0)
            value = json_object_get(item, "template");
        if (json_is_string(value))
            break;
    }
    *length = json_string_length(value);
    return json_string_value(value);
}

/* chat_template.jinja; NULL with an error, ERROR_NOT_FOUND where there is no such file. */
static struct chat_template *load_file(const char *directory, struct error *err)
{
    char path[PATH_BYTES];
    size_t length;
    snprintf(path, sizeof path, "%s/chat_template.jinja", directory);
    char *source = file_read(path, TEMPLATE_MAX_BYTES, &length, err);
    struct chat_template *made = source ? chat_template_new(source, length, err) : NULL;
    free(source);
    if (!made)
        error_prefix(err, "%s", path);
    return made;
}

static struct chat_template *load_member(const char *path, const json_t *config, struct error *err)
{
    size_t length;
    const char *source = template_of(config, &length);
    if (!source) {
        error_set(err, ERROR_NOT_FOUND, "%s: there is no chat_template", path);
        return NULL;
    }
    struct chat_template *made = chat_template_new(source, length, err);
    if (!made)
        error_prefix(err, "%s: chat_template", path);
    return made;
}

struct chat_template *chat_template_load(const char *directory, struct error *err)
{
    char path[PATH_BYTES];
    struct error missing = ERROR_INIT, unread = ERROR_INIT;
    snprintf(path, sizeof path, "%s/tokenizer_config.json", directory);
    json_t *config = node_load(path, &unread);
    struct chat_template *made = NULL;
    if (config || unread.code == ERROR_NOT_FOUND)
        made = load_file(directory, &missing);
    if (!made && config && missing.code == ERROR_NOT_FOUND)
        made = load_member(path, config, err);
    const struct error *why =
        missing.code != ERROR_NONE && missing.code != ERROR_NOT_FOUND ? &missing : &unread;
    if (!made && why->code != ERROR_NONE)
        error_set(err, why->code, "%s", why->text);
    if (made && config)
        made->specials = special_tokens(config);
    json_decref(config);
    return made;
}

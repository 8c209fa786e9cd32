/* Nodes live on the stack of whoever walks down. */
#include "proto/text/json_node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/parse_json.h"

enum { PATH_BYTES = 200, MESSAGE_BYTES = 400 };

/* Some tokenizer_config.json list hundreds of added tokens. */
enum { FILE_MAX_BYTES = 16 << 20, TREE_MAX_BYTES = 256 << 20 };

json_t *node_load(const char *path, struct error *err)
{
    size_t length, line, column;
    struct json_fault fault;
    char *text = file_read(path, FILE_MAX_BYTES, &length, err);
    if (text)
        json_shorten_integers(text, length);
    json_t *tree = text ? parse_json(text, length, JSON_ALLOW_NUL, TREE_MAX_BYTES, &fault) : NULL;
    if (text && !tree) {
        json_line_and_column(text, fault.position, &line, &column);
        error_set(err, json_fault_code(&fault), "line %zu, column %zu: %s", line, column,
                  fault.reason);
    }
    if (!tree)
        error_prefix(err, "%s", path);
    free(text);
    return tree;
}

static size_t write_path(const struct json_node *node, char *to, size_t size)
{
    size_t used = node->parent ? write_path(node->parent, to, size) : 0;
    int more = 0;
    if (node->parent && node->key)
        more = snprintf(to + used, size - used, "%s%s", used ? "." : "", node->key);
    else if (node->parent)
        more = snprintf(to + used, size - used, "[%zu]", node->index);
    size_t end = used + (size_t)(more > 0 ? more : 0);
    return end < size ? end : size - 1;
}

int node_error(const struct json_node *node, struct error *err, enum error_code code,
               const char *format, ...)
{
    char path[PATH_BYTES] = "", message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    write_path(node, path, sizeof path);
    return error_set(err, code, "%s%s%s", path, *path ? ": " : "", message);
}

int node_prefix(const struct json_node *node, struct error *err)
{
    char path[PATH_BYTES] = "";
    write_path(node, path, sizeof path);
    error_prefix(err, "%s", path);
    return -1;
}

struct json_node node_member(const struct json_node *node, const char *key)
{
    const json_t *json = json_object_get(node->json, key);
    return (struct json_node){json_is_null(json) ? NULL : json, node, key, 0};
}

struct json_node node_item(const struct json_node *list, size_t index)
{
    const json_t *json = json_array_get(list->json, index);
    return (struct json_node){json_is_null(json) ? NULL : json, list, NULL, index};
}

/* ---- types ---- */

static const char *type_of(const json_t *json)
{
    static const char *const names[] = {"an object", "a list", "a string", "an integer",
                                        "a number",  "true",   "false",    "null"};
    return json ? names[json_typeof(json)] : "missing";
}

static int refuse(const struct json_node *node, const char *expected, struct error *err)
{
    return node_error(node, err, ERROR_INVALID, "expected %s, it is %s", expected,
                      type_of(node->json));
}

int node_object(const struct json_node *node, struct error *err)
{
    return json_is_object(node->json) ? 0 : refuse(node, "an object", err);
}

int node_list(const struct json_node *node, size_t *count, struct error *err)
{
    *count = json_array_size(node->json);
    return json_is_array(node->json) ? 0 : refuse(node, "a list", err);
}

static bool is_listed(const char *key, const char *keys)
{
    size_t length = strlen(key);
    for (const char *at = keys; length > 0 && (at = strstr(at, key)) != NULL; at += length)
        if ((at == keys || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return true;
    return false;
}

int node_only(const struct json_node *node, const char *keys, struct error *err)
{
    if (node_object(node, err) != 0)
        return -1;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)node->json, key, value) {
        if (!is_listed(key, keys))
            return node_error(node, err, ERROR_UNSUPPORTED,
                              "the key '%.60s' is not known here; known are: %s", key, keys);
    }
    return 0;
}

int node_text(const struct json_node *node, const char *key, const char *otherwise,
              const char **value, struct error *err)
{
    struct json_node member = node_member(node, key);
    *value = otherwise;
    if (!member.json && otherwise)
        return 0;
    if (!json_is_string(member.json))
        return refuse(&member, "a string", err);
    *value = json_string_value(member.json);
    return 0;
}

int node_bool(const struct json_node *node, const char *key, const bool *otherwise, bool *value,
              struct error *err)
{
    struct json_node member = node_member(node, key);
    if (!member.json && otherwise) {
        *value = *otherwise;
        return 0;
    }
    if (!json_is_boolean(member.json))
        return refuse(&member, "true or false", err);
    *value = json_is_true(member.json);
    return 0;
}

int node_integer(const struct json_node *node, const char *key, int64_t least, int64_t most,
                 int64_t *value, struct error *err)
{
    struct json_node member = node_member(node, key);
    if (!json_is_integer(member.json))
        return refuse(&member, "an integer", err);
    *value = json_integer_value(member.json);
    if (*value < least || *value > most)
        return node_error(&member, err, ERROR_INVALID, "%lld is not from %lld to %lld",
                          (long long)*value, (long long)least, (long long)most);
    return 0;
}

/* ---- kinds ---- */

int node_read_kind(const struct json_node *node, const struct node_kind *kinds, void *target,
                   struct error *err)
{
    const char *type;
    if (node_object(node, err) != 0 || node_text(node, "type", NULL, &type, err) != 0)
        return -1;
    for (; kinds->type; kinds++) {
        if (strcmp(kinds->type, type) != 0)
            continue;
        char keys[MESSAGE_BYTES];
        snprintf(keys, sizeof keys, "type %s", kinds->keys);
        return node_only(node, keys, err) == 0 ? kinds->read(target, node, err) : -1;
    }
    struct json_node member = node_member(node, "type");
    return node_error(&member, err, ERROR_UNSUPPORTED, "'%.80s' is not supported", type);
}

int node_read_each(const struct json_node *node, const char *key, const struct node_kind *kinds,
                   void *target, struct error *err)
{
    struct json_node list = node_member(node, key);
    size_t count;
    if (node_list(&list, &count, err) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct json_node item = node_item(&list, i);
        if (node_read_kind(&item, kinds, target, err) != 0)
            return -1;
    }
    return 0;
}

/* Every getter records the key that it was asked for, then checks presence, type and range. */
#include "core/load/config.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/parse_json.h"

/* The labels of a hundred thousand classes fit, and so does the index of half a million tensors.
 * The bound on bytes keeps a gigabyte from being read; the bound on heap keeps a small text from
 * becoming a huge tree. */
enum { MAX_CONFIG_BYTES = 64 << 20, MAX_CONFIG_HEAP = 256 << 20 };

static void append_path(const struct config_node *node, char *path, size_t size)
{
    if (!node->parent)
        return;
    append_path(node->parent, path, size);
    size_t used = strlen(path);
    if (node->index == CONFIG_NO_INDEX)
        snprintf(path + used, size - used, "%s%s", used ? "." : "", node->key);
    else
        snprintf(path + used, size - used, "%s%s[%zu]", used ? "." : "", node->key, node->index);
}

int config_error(const struct config_node *node, const char *key, struct error *err,
                 const char *format, ...)
{
    char path[256] = "", message[256];
    append_path(node, path, sizeof path);
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return error_set(err, ERROR_INVALID, "config.json: %s%s%s%s%s", path, *path && key ? "." : "",
                     key ? key : "", *path || key ? ": " : "", message);
}

int config_open(struct config_node *root, const char *path, struct error *err)
{
    struct error cause = ERROR_INIT;
    size_t length, line, column;
    struct json_fault fault;
    char *text = file_read(path, MAX_CONFIG_BYTES, &length, &cause);
    if (!text)
        return error_set(err, cause.code, "%s: %s", path, cause.text);
    json_shorten_integers(text, length);
    json_t *json = parse_json(text, length, 0, MAX_CONFIG_HEAP, &fault);
    if (!json && fault.kind == JSON_FAULT_NO_MEMORY) {
        error_set(err, ERROR_UNAVAILABLE, "%s: %s", path, fault.reason);
    } else if (!json) {
        json_line_and_column(text, fault.position, &line, &column);
        error_set(err, ERROR_INVALID, "%s: line %zu, column %zu: %s", path, line, column,
                  fault.reason);
    } else if (!json_is_object(json)) {
        error_set(err, ERROR_INVALID, "%s: expected a JSON object", path);
        json_decref(json);
        json = NULL;
    }
    free(text);
    *root = (struct config_node){.json = json, .index = CONFIG_NO_INDEX};
    return json ? 0 : -1;
}

void config_close(struct config_node *root)
{
    json_decref(root->json);
    root->json = NULL;
}

static json_t *get(struct config_node *node, const char *key)
{
    if (!config_was_asked(node, key) && node->asked_count < CONFIG_MAX_KEYS)
        node->asked[node->asked_count++] = key;
    return json_object_get(node->json, key);
}

bool config_has(struct config_node *node, const char *key)
{
    return get(node, key) != NULL;
}

bool config_is_text(struct config_node *node, const char *key)
{
    return json_is_string(get(node, key));
}

int config_integer(struct config_node *node, const char *key, int64_t otherwise,
                   struct config_range range, int64_t *value, struct error *err)
{
    json_t *json = get(node, key);
    if (!json && otherwise == CONFIG_REQUIRED)
        return config_error(node, key, err, "missing; expected an integer");
    if (!json) {
        *value = otherwise;
        return 0;
    }
    if (!json_is_integer(json) || json_integer_value(json) < range.least ||
        json_integer_value(json) > range.most)
        return config_error(node, key, err, "expected an integer from %lld to %lld",
                            (long long)range.least, (long long)range.most);
    *value = json_integer_value(json);
    return 0;
}

/* Every real of the format ends up in an f32. */
static bool is_f32(const json_t *json)
{
    return json_is_number(json) && fabs(json_number_value(json)) <= (double)FLT_MAX;
}

int config_real(struct config_node *node, const char *key, const double *otherwise, double *value,
                struct error *err)
{
    json_t *json = get(node, key);
    if (!json && !otherwise)
        return config_error(node, key, err, "missing; expected a number");
    if (!json) {
        *value = *otherwise;
        return 0;
    }
    if (!is_f32(json))
        return config_error(node, key, err, "expected a number that f32 can hold");
    *value = json_number_value(json);
    return 0;
}

int config_flag(struct config_node *node, const char *key, bool otherwise, bool *value,
                struct error *err)
{
    json_t *json = get(node, key);
    if (json && !json_is_boolean(json))
        return config_error(node, key, err, "expected true or false");
    *value = json ? json_is_true(json) : otherwise;
    return 0;
}

int config_text(struct config_node *node, const char *key, const char *otherwise,
                const char **value, struct error *err)
{
    json_t *json = get(node, key);
    if (!json && !otherwise)
        return config_error(node, key, err, "missing; expected a string");
    if (json && !json_is_string(json))
        return config_error(node, key, err, "expected a string");
    *value = json ? json_string_value(json) : otherwise;
    return 0;
}

int config_choice(struct config_node *node, const char *key, const char *const names[],
                  int otherwise, int *value, struct error *err)
{
    const char *text = NULL;
    if (config_text(node, key, otherwise < 0 ? NULL : names[otherwise], &text, err) != 0)
        return -1;
    char known[160] = "";
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = i;
            return 0;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    }
    return config_error(node, key, err, "'%.40s' is not one of %s", text, known);
}

int config_shape(struct config_node *node, const char *key, size_t least, struct moed_shape *shape,
                 struct error *err)
{
    json_t *json = get(node, key);
    size_t rank = json_array_size(json);
    if (!json_is_array(json) || rank < least || rank > MOED_MAX_RANK)
        return config_error(node, key, err, "expected a list of %zu to %d sizes", least,
                            MOED_MAX_RANK);
    shape->rank = rank;
    for (size_t i = 0; i < rank; i++) {
        json_t *dim = json_array_get(json, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 1)
            return config_error(node, key, err, "size %zu must be a positive integer", i);
        shape->dims[i] = (size_t)json_integer_value(dim);
    }
    return 0;
}

int config_integers(struct config_node *node, const char *key, struct config_range range,
                    int32_t **values, size_t *count, struct error *err)
{
    json_t *json = get(node, key);
    if (!json_is_array(json) || json_array_size(json) == 0)
        return config_error(node, key, err, "expected a list of integers");
    *count = json_array_size(json);
    if (!(*values = calloc_checked(*count, sizeof **values, err)))
        return -1;
    for (size_t i = 0; i < *count; i++) {
        json_t *item = json_array_get(json, i);
        if (!json_is_integer(item) || json_integer_value(item) < range.least ||
            json_integer_value(item) > range.most) {
            free(*values);
            *values = NULL; /* the caller frees what it was given */
            return config_error(node, key, err, "entry %zu is not an integer from %lld to %lld", i,
                                (long long)range.least, (long long)range.most);
        }
        (*values)[i] = (int32_t)json_integer_value(item);
    }
    return 0;
}

int config_reals(struct config_node *node, const char *key, double **values, size_t *count,
                 struct error *err)
{
    json_t *json = get(node, key);
    if (!json_is_array(json) || json_array_size(json) == 0)
        return config_error(node, key, err, "expected a list of numbers");
    *count = json_array_size(json);
    if (!(*values = calloc_checked(*count, sizeof **values, err)))
        return -1;
    for (size_t i = 0; i < *count; i++) {
        json_t *item = json_array_get(json, i);
        if (!is_f32(item)) {
            free(*values);
            *values = NULL; /* the caller frees what it was given */
            return config_error(node, key, err, "entry %zu is not a number that f32 can hold", i);
        }
        (*values)[i] = json_number_value(item);
    }
    return 0;
}

int config_texts(struct config_node *node, const char *key, const char ***values, size_t *count,
                 struct error *err)
{
    json_t *json = get(node, key);
    if (!json_is_array(json))
        return config_error(node, key, err, "expected a list of strings");
    *count = json_array_size(json);
    if (!(*values = calloc_checked(*count, sizeof **values, err)))
        return -1;
    for (size_t i = 0; i < *count; i++) {
        (*values)[i] = json_string_value(json_array_get(json, i));
        if (!(*values)[i]) {
            free(*values);
            *values = NULL;
            return config_error(node, key, err, "entry %zu is not a string", i);
        }
    }
    return 0;
}

static void child_init(struct config_node *child, const struct config_node *parent, const char *key,
                       size_t index, json_t *json)
{
    *child = (struct config_node){.json = json, .parent = parent, .key = key, .index = index};
}

int config_object(struct config_node *node, const char *key, struct config_node *child,
                  struct error *err)
{
    json_t *json = get(node, key);
    if (!json_is_object(json))
        return config_error(node, key, err, "%sexpected an object", json ? "" : "missing; ");
    child_init(child, node, key, CONFIG_NO_INDEX, json);
    return 0;
}

int config_list(struct config_node *node, const char *key, size_t *count, struct error *err)
{
    json_t *json = get(node, key);
    if (!json_is_array(json) || json_array_size(json) == 0)
        return config_error(node, key, err, "%sexpected a list of objects",
                            json ? "" : "missing; ");
    *count = json_array_size(json);
    return 0;
}

int config_item(struct config_node *node, const char *key, size_t index, struct config_node *child,
                struct error *err)
{
    json_t *json = json_array_get(get(node, key), index);
    child_init(child, node, key, index, json);
    if (!json_is_object(json))
        return config_error(child, NULL, err, "expected an object");
    return 0;
}

int config_items(struct config_items *items, struct config_node *node, struct error *err)
{
    items->listed = config_has(node, items->many);
    items->count = 1;
    if (!items->listed)
        return 0;
    if (config_has(node, items->one))
        return config_error(node, items->many, err, "%s has either \"%s\" or \"%s\"", items->owner,
                            items->one, items->many);
    if (config_list(node, items->many, &items->count, err) != 0)
        return -1;
    if (items->count > items->most)
        return config_error(node, items->many, err, "more than %zu", items->most);
    return 0;
}

int config_items_at(const struct config_items *items, struct config_node *node, size_t index,
                    struct config_node *child, struct error *err)
{
    return items->listed ? config_item(node, items->many, index, child, err)
                         : config_object(node, items->one, child, err);
}

int config_since(struct config_node *node, int since, int format, const char *const keys[],
                 struct error *err)
{
    for (; format < since && *keys; keys++)
        if (config_has(node, *keys))
            return config_error(node, *keys, err, "needs \"format_version\": %d", since);
    return 0;
}

bool config_was_asked(const struct config_node *node, const char *key)
{
    bool asked = false;
    for (size_t i = 0; i < node->asked_count; i++)
        asked |= strcmp(node->asked[i], key) == 0;
    return asked;
}

int config_done(struct config_node *node, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach (node->json, key, value)
        if (!config_was_asked(node, key))
            return config_error(node, NULL, err, "unknown key '%.60s'", key);
    return 0;
}

void config_drop_nulls(struct config_node *node)
{
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(node->json, next, key, value) if (json_is_null(value))
        json_object_del(node->json, key);
}

const char *config_next_key(const struct config_node *node, const char *key)
{
    void *at = key ? json_object_iter_next(node->json, json_object_key_to_iter(key))
                   : json_object_iter(node->json);
    return at ? json_object_iter_key(at) : NULL;
}

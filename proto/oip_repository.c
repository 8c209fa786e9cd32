/* Small documents: bounded, and parsed whole. */
#include "proto/oip_repository.h"

#include <string.h>

#include "core/parse_json.h"
#include "proto/json.h"
#include "proto/members.h"

enum { MAX_HEAP = 1 << 20 };

/* An object; NULL with an error. The caller drops the reference. */
static json_t *read_object(const char *body, size_t length, struct error *err)
{
    struct json_fault fault = {JSON_FAULT_NO_MEMORY, 0, "no memory for the parsed text"};
    json_t *root = length > 0 ? parse_json(body, length, 0, MAX_HEAP, &fault) : json_object();
    if (!root)
        member_no_tree(&fault, err);
    if (!root || json_is_object(root))
        return root;
    error_set(err, ERROR_INVALID, "the body is %s, expected an object", member_type(root));
    json_decref(root);
    return NULL;
}

int oip_decode_index(const char *body, size_t length, bool *ready_only, struct error *err)
{
    *ready_only = false;
    json_t *root = read_object(body, length, err);
    if (!root)
        return -1;
    const int result = member_bool(root, NULL, "ready", ready_only, err);
    json_decref(root);
    return result;
}

int oip_decode_change(const char *body, size_t length, struct error *err)
{
    const json_t *parameters = NULL;
    json_t *root = read_object(body, length, err);
    if (!root)
        return -1;
    int result = member_object(root, NULL, "parameters", &parameters, err);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)parameters, key, value)
        if (result == 0 && (strcmp(key, "config") == 0 || strncmp(key, "file:", 5) == 0))
            result = error_set(err, ERROR_INVALID,
                               "parameter " QUOTED " is not supported: models are loaded as they "
                               "are in the repository",
                               key);
    json_decref(root);
    return result;
}

void oip_append_index_entry(struct buffer *body, const char *name, const char *version,
                            const char *state, const char *reason)
{
    buffer_text(body, "{\"name\":");
    json_append_string(body, name);
    if (*version) {
        buffer_text(body, ",\"version\":");
        json_append_string(body, version);
    }
    buffer_format(body, ",\"state\":\"%s\",\"reason\":", state);
    json_append_string(body, reason);
    buffer_text(body, "}");
}

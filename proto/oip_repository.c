/* Small documents: bounded, and parsed whole. */
#include "proto/oip_repository.h"

#include <string.h>
#include <strings.h>

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
    static const char *const NAMES[] = {"ready", "repository_name", NULL};
    *ready_only = false;
    json_t *root = read_object(body, length, err);
    if (!root)
        return -1;
    int result = member_check_spelling(root, NULL, NAMES, err);
    if (result == 0)
        result = member_bool(root, NULL, "ready", ready_only, err);
    json_decref(root);
    return result;
}

/* What would make another model of it than the repository's. */
static bool is_override(const char *parameter)
{
    return strcmp(parameter, "config") == 0 || strncasecmp(parameter, "file:", 5) == 0;
}

static int check_parameters(const json_t *parameters, struct error *err)
{
    static const char *const NAMES[] = {"config", "unload_dependents", NULL};
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)parameters, key, value)
        if (is_override(key))
            return error_set(err, ERROR_INVALID,
                             "parameter " QUOTED " is not supported: models are loaded as they "
                             "are in the repository",
                             key);
    return parameters ? member_check_spelling(parameters, "parameters", NAMES, err) : 0;
}

int oip_decode_change(const char *body, size_t length, struct error *err)
{
    static const char *const NAMES[] = {"parameters", NULL};
    const json_t *parameters = NULL;
    json_t *root = read_object(body, length, err);
    if (!root)
        return -1;
    int result = member_check_spelling(root, NULL, NAMES, err);
    if (result == 0)
        result = member_object(root, NULL, "parameters", &parameters, err);
    if (result == 0)
        result = check_parameters(parameters, err);
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

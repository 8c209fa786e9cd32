/* The file is ours, and read with as much suspicion as a body. */
#include "proto/quarantine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "proto/json.h"
#include "proto/members.h"

enum { MAX_HEAP = 16 << 20, MAX_TEXT_BYTES = 1024, FILE_VERSION = 1 };

void quarantine_entry_close(struct quarantine_entry *entry)
{
    free(entry->model);
    free(entry->version);
    free(entry->layer);
    free(entry->reason);
    free(entry->by);
    free(entry->request_id);
    *entry = (struct quarantine_entry){0};
}

/* ---- reading ---- */

static json_t *parse(const char *text, size_t length, struct error *err)
{
    struct json_fault fault;
    json_t *root = parse_json(text, length, 0, MAX_HEAP, &fault);
    if (!root)
        member_no_tree(&fault, err);
    return root;
}

/* A member that must be there unless `otherwise` is what it is without; copied. */
static int read_text(const json_t *object, const char *key, size_t most, const char *otherwise,
                     char **text, struct error *err)
{
    const char *value = otherwise;
    if (member_string(object, NULL, key, &value, err) != 0)
        return -1;
    if (!value)
        return member_missing(NULL, key, "a string", err);
    if (strlen(value) > most)
        return error_set(err, ERROR_INVALID, "'%s' has %zu bytes, the limit is %zu", key,
                         strlen(value), most);
    *text = xstrdup(value);
    return 0;
}

static int read_place(const json_t *object, struct quarantine_entry *entry, struct error *err)
{
    size_t expert = SIZE_MAX;
    if (!json_is_object(object))
        return error_set(err, ERROR_INVALID, "the body is %s, expected an object",
                         member_type(object));
    if (read_text(object, "layer", MAX_TEXT_BYTES, NULL, &entry->layer, err) != 0 ||
        member_size(object, NULL, "expert", &expert, err) != 0)
        return -1;
    if (expert == SIZE_MAX)
        return member_missing(NULL, "expert", "its index in the layer", err);
    entry->expert = expert;
    return read_text(object, "reason", QUARANTINE_MAX_REASON_BYTES, "", &entry->reason, err);
}

static int check_members(const json_t *object, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        if (strcmp(key, "layer") != 0 && strcmp(key, "expert") != 0 && strcmp(key, "reason") != 0)
            return error_set(err, ERROR_INVALID,
                             "unknown member " QUOTED ", expected 'layer', 'expert' or 'reason'",
                             key);
    }
    return 0;
}

int quarantine_read_request(const char *body, size_t length, struct quarantine_entry *entry,
                            struct error *err)
{
    *entry = (struct quarantine_entry){0};
    json_t *root = parse(body, length, err);
    int result =
        root && check_members(root, err) == 0 && read_place(root, entry, err) == 0 ? 0 : -1;
    json_decref(root);
    if (result != 0)
        quarantine_entry_close(entry);
    return result;
}

static int read_entry(const json_t *object, struct quarantine_entry *entry, struct error *err)
{
    size_t since = 0;
    if (read_place(object, entry, err) != 0 ||
        read_text(object, "model", MAX_TEXT_BYTES, NULL, &entry->model, err) != 0 ||
        read_text(object, "version", MAX_TEXT_BYTES, NULL, &entry->version, err) != 0 ||
        read_text(object, "by", MAX_TEXT_BYTES, "", &entry->by, err) != 0 ||
        read_text(object, "request_id", MAX_TEXT_BYTES, "", &entry->request_id, err) != 0 ||
        member_size(object, NULL, "since", &since, err) != 0)
        return -1;
    entry->since = since;
    return 0;
}

static int read_entries(const json_t *root, struct quarantine_entry *entries, size_t *count,
                        struct error *err)
{
    const json_t *list = NULL;
    size_t version = 0;
    if (!json_is_object(root) || member_size(root, NULL, "version", &version, err) != 0)
        return error_set(err, ERROR_INVALID, "no list of experts in quarantine");
    if (version > FILE_VERSION)
        return error_set(err, ERROR_UNSUPPORTED,
                         "version %zu, of a newer moed; this one knows version %d", version,
                         FILE_VERSION);
    if (member_list(root, NULL, "quarantine", &list, err) != 0)
        return error_set(err, ERROR_INVALID, "no list of experts in quarantine");
    if (version != FILE_VERSION || json_array_size(list) > QUARANTINE_MAX_ENTRIES)
        return error_set(err, ERROR_INVALID,
                         "version %zu with %zu %s, expected version %d with up to %d", version,
                         json_array_size(list), json_array_size(list) == 1 ? "entry" : "entries",
                         FILE_VERSION, QUARANTINE_MAX_ENTRIES);
    for (size_t i = 0; i < json_array_size(list); i++) {
        ++*count;
        if (read_entry(json_array_get(list, i), &entries[i], err) != 0)
            return -1;
    }
    return 0;
}

int quarantine_read_list(const char *text, size_t length, struct quarantine_entry *entries,
                         size_t *count, struct error *err)
{
    memset(entries, 0, QUARANTINE_MAX_ENTRIES * sizeof *entries);
    *count = 0;
    json_t *root = parse(text, length, err);
    int result = root ? read_entries(root, entries, count, err) : -1;
    json_decref(root);
    while (result != 0 && *count > 0)
        quarantine_entry_close(&entries[--*count]);
    return result;
}

/* ---- writing ---- */

static void append_text(struct buffer *body, const char *key, const char *text)
{
    buffer_format(body, ",\"%s\":", key);
    json_append_string(body, text);
}

/* All but the place. */
static void append_facts(const struct quarantine_entry *entry, struct buffer *body)
{
    buffer_format(body, "\"expert\":%zu", entry->expert);
    append_text(body, "reason", entry->reason);
    append_text(body, "by", entry->by);
    append_text(body, "request_id", entry->request_id);
    buffer_format(body, ",\"since\":%" PRIu64 "}", entry->since);
}

void quarantine_append_entry(const struct quarantine_entry *entry, struct buffer *body)
{
    buffer_text(body, "{");
    append_facts(entry, body);
}

void quarantine_write_list(const struct quarantine_entry *entries, size_t count,
                           struct buffer *body)
{
    buffer_format(body, "{\"version\":%d,\"quarantine\":[", FILE_VERSION);
    for (size_t i = 0; i < count; i++) {
        buffer_text(body, i > 0 ? ",\n{\"model\":" : "\n{\"model\":");
        json_append_string(body, entries[i].model);
        append_text(body, "version", entries[i].version);
        append_text(body, "layer", entries[i].layer);
        buffer_text(body, ",");
        append_facts(&entries[i], body);
    }
    buffer_text(body, "\n]}\n");
}
